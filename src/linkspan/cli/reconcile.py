"""`linkspan outbox reconcile`: what each service has numbered, against what waits in its outbox and what the broker has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan import envelope as envelopes
from linkspan.cli.dead_target import AsJson, Target  # noqa: TC001 - typer reads them
from linkspan.cli.singly import singly
from linkspan.cli.table import show
from linkspan.cli.tap import moment_of, tap_of
from linkspan.cli.target import load_app, opened_stores
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Broker, Seen, Store

__all__ = ["reconcile"]

PAGE = 1_000
PATIENCE = 60.0
"""Seconds in which a topic's log must be read."""
_WAITING = """
select topic, name, lane, id, key, headers, data, sequence, position, at from linkspan_outbox where position > ? order by position limit ?
"""
_COUNTED = "select topic, key, last from linkspan_sequence where (topic, key) > (?, ?) order by topic, key limit ?"


@dataclass(slots=True)
class KeyState:
    """What is known of one key: the last number given, the rows that wait with their age in seconds, the numbers that the broker has."""

    last: int = 0
    waiting: list[tuple[Outgoing, float]] = field(default_factory=list[tuple[Outgoing, float]])
    stored: set[int] = field(default_factory=set[int])

    def missing(self) -> list[int]:
        """Return the numbers that are nowhere. What is below all that the broker still has was there once: logs have an end."""
        known = self.stored | {message.sequence for message, _ in self.waiting}
        return [number for number in range(min(known, default=self.last + 1), self.last + 1) if number not in known]

    def left(self) -> bool:
        """Tell whether some of its messages wait no more."""
        return len(self.waiting) < self.last

    def late(self, older: float) -> bool:
        """Tell whether the first row that waits is old."""
        return bool(self.waiting) and self.waiting[0][1] > older and self.waiting[0][0].sequence not in self.stored


def reconcile(
    target: Target,
    service: Annotated[str, typer.Option("--service", help="Only this service.", metavar="NAME")] = "",
    *,
    older: Annotated[float, typer.Option(help="A row is late after this many seconds.", min=0.0)] = 60.0,
    since: Annotated[str, typer.Option(help="How far back to read the broker's log: all, 2h, or a moment.")] = "all",
    resend: Annotated[bool, typer.Option("--resend", help="Send late rows now, with the ids that they have, in order per key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find messages that are late, stuck behind another, or nowhere. Exits with 1 when there are any. Works beside running services.

    A row is deleted once the broker has stored its message, so what a broker lost afterwards is named here and cannot be made again:
    publish such facts anew from the service's own tables. What is below all that the broker still has of a key is taken for expired.
    """
    rows = asyncio.run(_reconciled(load_app(target), service, older, since, resend=resend))
    show(rows, as_json=as_json, empty="Every numbered message is at the broker, or about to be.")
    if any(row["state"] != "sent now" for row in rows):
        raise typer.Exit(1)


async def _reconciled(app: App, service: str, older: float, since: str, *, resend: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with opened_stores(app, service) as stores, app.connected() as broker:
        by_store: dict[int, tuple[Store, list[str]]] = {}
        for name, store in stores.items():
            by_store.setdefault(id(store), (store, []))[1].append(name)
        for store, names in by_store.values():
            keys = await _stored(store)  # before the broker's log: what moves from here to there meanwhile is seen there
            absent = await _logged(broker, keys, {f"/{name}" for name in names}, moment_of(since, system().clock.now()))
            for (topic, key), state in sorted(keys.items()):
                rows += [{"service": ",".join(names), "topic": topic, "key": key, **each} for each in _findings(state, older)]
                if resend and state.late(older):
                    rows[-1].update(await _resent(store, broker, state))
            rows += [{"service": ",".join(names), **each} for each in _absences(keys, absent)]
    return rows


def _absences(keys: dict[tuple[str, str], KeyState], absent: list[str]) -> list[dict[str, Any]]:
    """Report topics that the broker does not know although messages of theirs have left: it was replaced, or restored without them."""
    found: list[dict[str, Any]] = []
    for topic in absent:
        gone = sum(state.left() for (at, _), state in keys.items() if at == topic)
        if gone:
            what = f"the broker has no log of this topic, and messages of {gone} of its keys have left: is it the right broker?"
            found.append({"topic": topic, "key": "", "state": "missing", "id": "", "finding": what})
    return found


def _findings(state: KeyState, older: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    missing = state.missing()
    if missing:
        what = f"{_ranges(missing)} of {state.last} are neither in the outbox nor in the broker's log"
        found.append({"state": "missing", "id": "", "finding": what})
    if state.late(older):
        message, age = state.waiting[0]
        behind = f", {len(state.waiting) - 1} wait behind it" if len(state.waiting) > 1 else ""
        found.append({"state": "late", "id": message.id, "finding": f"number {message.sequence} waits for {age:.0f} s{behind}"})
    return found


async def _stored(store: Store) -> dict[tuple[str, str], KeyState]:
    """Read counters, then rows: a row that is added meanwhile has a number above its counter's and is not missed."""
    keys: dict[tuple[str, str], KeyState] = {}
    last = ("", "")
    while page := await store.read(_COUNTED, (*last, PAGE)):
        keys |= {(topic, key): KeyState(number) for topic, key, number in page}
        last = page[-1][:2]
    position, now = 0, system().clock.now()
    while page := await store.read(_WAITING, (position, PAGE)):
        for *message, at in page:
            row = Outgoing(*message)
            keys.setdefault((row.topic, row.key), KeyState()).waiting.append((row, now - at))
            position = row.position
    return keys


async def _logged(broker: Broker, keys: dict[tuple[str, str], KeyState], sources: set[str], since: float | None) -> list[str]:
    """Read what the broker has of these sources; return the topics that it does not know."""
    count = 0
    absent: list[str] = []

    def receive(seen: Seen) -> None:
        nonlocal count
        count += 1
        for single in singly(seen):
            try:
                envelope = envelopes.read(single.headers, single.data)
            except Error:
                continue
            state = keys.get((single.topic, envelope.key))
            if state is not None and envelope.source in sources:
                state.stored.add(envelope.sequence)

    tap = tap_of(broker, receive)
    try:
        for topic in sorted({topic for topic, _ in keys}):
            before = count
            try:
                wanted = await tap.add(topic, since=since)
            except Error as error:
                if error.code is not Code.NOT_FOUND:
                    raise
                absent.append(topic)
                continue
            async with asyncio.timeout(PATIENCE):
                while count - before < wanted:  # noqa: ASYNC110 - a plain callback counts
                    await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise SetupError("The broker's log was not read to its end: name a moment with --since.") from error
    finally:
        await tap.aclose()
    return absent


async def _resent(store: Store, broker: Broker, state: KeyState) -> dict[str, Any]:
    """Send a key's rows in order, as they are; a running relay may do the same, and the broker has each id once."""
    sent = 0
    for message, _ in state.waiting:
        try:
            await broker.publish(message)
        except Error as error:
            return {"state": "refused" if error.code is Code.INVALID_ARGUMENT else "late", "finding": f"{sent} sent, then: {error.message}"}
        await store.apply([("delete from linkspan_outbox where position = ?", (message.position,))])
        sent += 1
    return {"state": "sent now", "finding": f"{sent} sent"}


def _ranges(numbers: list[int], most: int = 5) -> str:
    """Write numbers as ranges, the first few."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most])
    return f"numbers {shown}{', ...' if len(ranges) > most else ''}"
