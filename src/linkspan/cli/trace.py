"""`linkspan trace`: one flow from call to last effect, joined from what is kept anyway.

The spans come from the ring that `linkspan dev` and `run --record-traces` keep in the data folder; when a message was written and
when it was stored, from the broker's own log; what waits, from outboxes and held letters. Payloads are not read.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from linkspan import envelope as envelopes
from linkspan.cli.declared import topics_of
from linkspan.cli.singly import singly
from linkspan.cli.tap import tap_of
from linkspan.cli.target import opened_stores
from linkspan.errors import Code, Error, SetupError
from linkspan.runtime import system
from linkspan.telemetry.record import read_spans, ring_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from linkspan.app import App
    from linkspan.envelope import Envelope
    from linkspan.ports import Letter, Seen
    from linkspan.telemetry.record import Span

__all__ = ["Flow", "Passed", "collect"]

SLACK = 2.0
"""Seconds before the first known moment at which the broker's log is read."""
FAR = 3600.0
"""Seconds back that the log is read where nothing tells when the flow began."""
MOST = 50_000
"""Messages of the log that are looked at."""
HELD = 10_000
"""Held letters and waiting rows that are looked at, per service."""
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Passed:
    """A message of the flow: its attributes, when its sender wrote it, and when the broker stored it (0 where it waits in an outbox)."""

    topic: str
    envelope: Envelope
    written: float
    stored: float


@dataclass(slots=True)
class Flow:
    """All that is known of a flow; `notes` say what could not be looked at."""

    spans: list[Span] = field(default_factory=list["Span"])
    messages: list[Passed] = field(default_factory=list[Passed])
    letters: list[tuple[str, Letter, Envelope]] = field(default_factory=list["tuple[str, Letter, Envelope]"])
    notes: list[str] = field(default_factory=list[str])

    @property
    def found(self) -> bool:
        """Tell whether anything is known."""
        return bool(self.spans or self.messages or self.letters)


async def collect(app: App, name: str, *, since: float | None = None) -> Flow:
    """Find a flow by a trace id, a correlation id, or the id of a call or message."""
    flow = Flow()
    names = _names(name)
    flow.spans = read_spans(ring_file(app.data), names)
    began = since if since is not None else _began(names, flow.spans)
    passed, letters = await _passed(app, began, flow.notes), await _stored(app)
    belongs = _belonging(names, flow, [each.envelope for each in passed] + [envelope for _, _, envelope in letters[1]])
    flow.messages = [each for each in [*passed, *letters[0]] if belongs(each.envelope)]
    flow.letters = [each for each in letters[1] if belongs(each[2])]
    flow.messages = list({each.envelope.id: each for each in sorted(flow.messages, key=lambda each: each.stored)}.values())
    if not flow.spans:
        flow.spans = read_spans(ring_file(app.data), [each.envelope.trace[3:35] for each in flow.messages[:50]] or [""])
    return flow


def _names(name: str) -> list[str]:
    """Return an id as it may stand in traces (without dashes) and elsewhere."""
    given = name.strip()
    digits = given.replace("-", "").lower()
    traceparent = given.split("-")
    if len(traceparent) == 4 and _HEX.fullmatch(traceparent[1]):  # noqa: PLR2004 - the parts of a W3C traceparent
        return [traceparent[1]]
    if not _HEX.fullmatch(digits):
        return [given]
    dashed = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return list(dict.fromkeys([digits, dashed, given]))


def _began(names: list[str], spans: list[Span]) -> float:
    """Return from when the broker's log is read: the first span, or the time in an id of ours (UUIDv7), or an hour back."""
    moments = [span.began for span in spans[:1]]
    moments += [int(name[:12], 16) / 1000 for name in names if _HEX.fullmatch(name) and name[12] == "7"]
    now = system().clock.now()
    likely = [moment for moment in moments if now - 3650 * 86_400 < moment <= now + FAR]
    return min(likely, default=now - FAR) - SLACK


async def _passed(app: App, since: float, notes: list[str]) -> list[Passed]:
    """Read the broker's log from a moment to its end, without the payloads."""
    seen: list[Seen] = []
    try:
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(app.connected())
            tap = tap_of(broker, seen.append)
            stack.push_async_callback(tap.aclose)
            for topic in topics_of(app):
                await _read(tap.add(topic, since=since), seen, topic, notes)
    except (Error, SetupError) as error:
        notes.append(f"The broker's log was not read: {error.message if isinstance(error, Error) else error}")
    return [passed for each in seen for single in singly(each) if (passed := _message(single)) is not None]


async def _read(adding: Any, seen: list[Seen], topic: str, notes: list[str]) -> None:
    before = len(seen)
    try:
        wanted = min(await adding, MOST)
    except Error as error:
        if error.code is Code.NOT_FOUND:
            return
        raise
    try:
        async with asyncio.timeout(20):
            while len(seen) - before < wanted:  # noqa: ASYNC110 - a plain callback fills the list
                await asyncio.sleep(0.01)
    except TimeoutError:
        notes.append(f"The log of '{topic}' was not read to its end: name a moment with --since.")


def _message(seen: Seen) -> Passed | None:
    try:
        envelope = envelopes.read(seen.headers)
    except Error:
        return None
    return Passed(seen.topic, envelope, _moment(envelope.time, seen.stored), seen.stored)


def _moment(text: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return otherwise


async def _stored(app: App) -> tuple[list[Passed], list[tuple[str, Letter, Envelope]]]:
    """Return what waits in outboxes, and what services hold."""
    waiting: list[Passed] = []
    held: list[tuple[str, Letter, Envelope]] = []
    async with opened_stores(app, "", needed=False) as stores:
        for store in dict.fromkeys(stores.values()):
            for row in await store.unsent(0, HELD):
                envelope = envelopes.read(row.headers)
                waiting.append(Passed(row.topic, envelope, _moment(envelope.time, 0.0), 0.0))
            for letter in await store.letters(limit=HELD):
                try:
                    envelope = envelopes.read(letter.headers)
                except Error:
                    continue
                held.append((letter.topic.partition(":")[0], letter, envelope))
    return waiting, held


def _belonging(names: list[str], flow: Flow, known: Iterable[Envelope]) -> Callable[[Envelope], bool]:
    """Return what tells whether a message belongs to the flow: by its trace, or by the flow's first id."""
    wanted = set(names)
    traces = {span.trace for span in flow.spans}
    for envelope in known:
        if not wanted.isdisjoint({envelope.id, envelope.correlation or envelope.id, envelope.trace[3:35]} - {""}):
            traces.add(envelope.trace[3:35])
    traces.discard("")
    return lambda envelope: envelope.trace[3:35] in traces or envelope.id in wanted
