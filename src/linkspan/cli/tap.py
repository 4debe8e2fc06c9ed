"""`linkspan tap`: watch the messages that pass the broker, decoded, from beside."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from linkspan import envelope as envelopes
from linkspan.cli.declared import chosen_topics, types_of
from linkspan.cli.shown import content, shown_key
from linkspan.cli.singly import singly
from linkspan.errors import Code, Error, SetupError
from linkspan.runtime import system

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.app import App
    from linkspan.ports import Broker, Seen, Tap

__all__ = ["Look", "moment_of", "tap_of", "watch"]

NOT_YET = 1.0
"""Seconds between two looks for a topic that is not there yet."""
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Look:
    """How to look: from when (None for now, seconds since 1970, 0 for all), at most how many (0 for no end), and in which form."""

    since: float | None = None
    limit: int = 0
    as_json: bool = False
    raw: bool = False


def moment_of(text: str, now: float) -> float | None:
    """Read `--since`: a span back (`90s`, `10m`, `2h`, `1d`), a moment (RFC 3339), `all`, or '' for now. Raises `SetupError`."""
    if not text or text == "all":
        return 0.0 if text else None
    span = _SPAN.fullmatch(text)
    if span:
        return now - float(span[1]) * _SECONDS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SetupError(f"The moment '{text}' cannot be read: write 10m, 2h, 2026-01-31T12:00:00Z, or all.") from None
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def tap_of(broker: Broker, receive: Callable[[Seen], None]) -> Tap:
    """Return a tap on a broker. Raises `SetupError` where it has none."""
    made: Any = getattr(broker, "tap", None)
    if made is None:
        raise SetupError("This broker cannot be watched from another process: run the app on NATS, embedded or your own.")
    tap: Tap = made(receive)
    return tap


async def watch(app: App, names: Sequence[str], look: Look) -> int:
    """Print messages until a signal or the limit; return how many."""
    chosen, types = chosen_topics(app, names), types_of(app)
    if not chosen:
        raise SetupError("This app declares nothing that passes a broker: there is nothing to watch.")
    done, count, loop = asyncio.Event(), 0, asyncio.get_running_loop()

    def receive(seen: Seen) -> None:
        nonlocal count
        for single in singly(seen):
            line = _line(single, chosen[seen.topic], types, look)
            if line and not done.is_set():
                count += 1
                typer.echo(line)
                if count == look.limit:
                    done.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    async with app.connected() as broker:
        tap = tap_of(broker, receive)
        adding = loop.create_task(_add_all(tap, chosen, look))
        ending = loop.create_task(done.wait())
        try:
            await asyncio.wait([adding, ending], return_when=asyncio.FIRST_COMPLETED)
            if adding.done():
                adding.result()
            await ending
        finally:
            adding.cancel()
            ending.cancel()
            await tap.aclose()
    return count


async def _add_all(tap: Tap, chosen: dict[str, set[str] | None], look: Look) -> None:
    """Watch each topic; one that is not there yet is taken from its beginning as soon as it is."""
    missing, since = list(chosen), look.since
    typer.echo(f"Watching {', '.join(chosen)}; Ctrl-C ends it.", err=True)
    while missing:
        waiting: list[str] = []
        for topic in missing:
            try:
                await tap.add(topic, since=since)
            except Error as error:
                if error.code is not Code.NOT_FOUND:
                    raise
                waiting.append(topic)
        missing, since = waiting, 0.0
        if missing:
            await system().clock.sleep(NOT_YET)


def _line(seen: Seen, among: set[str] | None, types: dict[str, tuple[str, Any]], look: Look) -> str:
    """Return a message on one line, '' for one that was not asked for."""
    try:
        envelope = envelopes.read(seen.headers, seen.data)
    except Error as error:
        return "" if among is not None else _text(seen, {"problem": error.message}, look)
    if among is not None and envelope.type not in among:
        return ""
    cls = types.get(envelope.type, ("", None))[1]
    said: dict[str, Any] = {
        "type": envelope.type,
        "data": content(cls, envelope, seen.data, raw=look.raw),
        "key": shown_key(cls, envelope, raw=look.raw),
        "id": envelope.id,
        "source": envelope.source,
        "sequence": envelope.sequence,
        "trace": envelope.trace[3:35],
        "correlation": envelope.correlation or envelope.id,
        "causation": envelope.causation,
    }
    return _text(seen, said, look)


def _text(seen: Seen, said: dict[str, Any], look: Look) -> str:
    stored = datetime.fromtimestamp(seen.stored, UTC)
    if look.as_json:
        return json.dumps({"stored": stored.isoformat(timespec="milliseconds"), "topic": seen.topic, "number": seen.sequence, **said})
    moment = stored.astimezone().strftime("%H:%M:%S.%f")[:-3]
    if "problem" in said:
        return f"{moment}  {seen.topic} {seen.sequence}  {said['problem']}"
    data = said["data"] if isinstance(said["data"], str) else json.dumps(said["data"])
    return f"{moment}  {said['type']}  {data}  key={said['key']} id={said['id']} from={said['source']}"
