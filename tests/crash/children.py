"""The processes of a crash run: one per service, and the driver that asks and keeps the history."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import uvloop

from linkspan import Client, Error
from linkspan.letters import deadletter
from linkspan.runtime import system
from linkspan.stores import sqlite
from linkspan.stores.sqlite_file import SqliteLimits
from linkspan.testing.crash import CrashPoint, Recorder, crash_at
from linkspan.testing.history import Entry, History, Kind
from tests.crash.crash_app import Orders, Place, make_app, parts
from tests.crash.lossy import make_lossy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

_log = logging.getLogger("crash")


@dataclass(frozen=True, slots=True)
class Lane:
    """One key's requests, each sent after the answer to the one before. `path` is call, checked (interactive) or send (durable)."""

    key: str
    path: str = "call"
    plan: str = ""
    count: int = 5
    fan: int = 0
    burst: bool = False
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What every process of a run knows."""

    folder: Path
    broker: str
    store: str
    """The URL of a service's store; `{service}` stands for its name."""
    port: int
    lanes: tuple[Lane, ...]
    pages: int = 0
    """The most pages that a first ledger's database may have: a full disk that a restart finds larger."""
    lossy: float = 0.0
    """The share of a service's first publishes whose answer is lost, half of them with the message."""
    endless: bool = False
    """Whether lanes go on beyond their counts, until there is a file `enough`."""


def serve(settings: Settings, name: str, crash: str) -> None:
    """Run an instance of a service until SIGTERM, or until its crash point: `ledger`, or `ledger.2` for the second one."""
    first = not (settings.folder / f"{name}.log").exists()
    reached = _child(settings, name, crash)
    if first and settings.pages and name == "ledger":
        sqlite.SqliteLimits = partial(SqliteLimits, pages=settings.pages)  # type: ignore[misc]  # a smaller disk
    if settings.lossy and first:
        make_lossy(settings.lossy)
    deadletter.TICK = 0.1  # the looks of a second would make up most of a run
    http = f"127.0.0.1:{settings.port if name == 'orders' else 0}"
    app = make_app(settings.folder, settings.broker, http, runtime=system(reached), store=settings.store)
    _run(app.run([name.partition(".")[0]]), settings, name, reached)


def drive(settings: Settings, name: str, crash: str) -> None:
    """Ask for everything that has not been asked for yet."""
    reached = _child(settings, name, crash)
    _run(_drive(settings, reached), settings, name, reached)


def _child(settings: Settings, name: str, crash: str) -> Callable[[str], None]:
    """Die with the parent, write to a log, and take the hook."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(3)), daemon=True).start()
    log = os.open(settings.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(process)d %(name)s %(message)s")
    _log.info("starting with crash point %s", crash or "none")
    return crash_at(CrashPoint.parse(crash)) if crash else Recorder()


def _run(main: Coroutine[Any, Any, None], settings: Settings, name: str, reached: Callable[[str], None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
    if isinstance(reached, Recorder):
        (settings.folder / f"{name}.points.json").write_text(json.dumps(reached.counts), encoding="utf-8")


async def _drive(settings: Settings, reached: Callable[[str], None]) -> None:
    history = History(settings.folder / "history.jsonl")
    entries = history.read()
    asked = {entry.id for entry in entries if entry.kind is Kind.INVOKED}
    answered = {entry.id for entry in entries if entry.kind is Kind.ACKNOWLEDGED}
    addresses = f"http://127.0.0.1:{settings.port}"
    async with Client(settings.broker, addresses=addresses, name="driver", runtime=system(reached)) as client, asyncio.TaskGroup() as group:
        for lane in settings.lanes:
            group.create_task(_drive_lane(settings, lane, client, history, asked, answered))


async def _drive_lane(settings: Settings, lane: Lane, client: Client, history: History, asked: set[str], answered: set[str]) -> None:
    for number in count(1) if settings.endless else range(1, lane.count + 1):
        if settings.endless and (settings.folder / "enough").exists():
            return
        request = Place(key=lane.key, id=f"{lane.key}-{number}", number=number, plan=lane.plan, fan=lane.fan, burst=lane.burst)
        first = parts(request)[0][0]
        if first in answered or (first in asked and lane.path != "send"):
            continue  # a call without an answer stays unknown: repeating it could do it twice
        if lane.path != "send":
            await _listening(settings.port)
        if first not in asked:
            _note(history, Kind.INVOKED, request)
        if await _ask(client, lane, request):
            _note(history, Kind.ACKNOWLEDGED, request)
        await asyncio.sleep(lane.pause)


async def _ask(client: Client, lane: Lane, request: Place) -> bool:
    """Ask once, or for a durable command again with the same key until it is stored."""
    while True:
        try:
            if lane.path == "send":
                await client.send(Orders.place, request, key=request.id)
            else:
                await client.call(Orders.place_checked if lane.path == "checked" else Orders.place, request, timeout=20.0)
        except Error as error:
            _log.info("%s: %s", request.id, error)
            if lane.path != "send":
                return False
            await asyncio.sleep(0.1)
        else:
            return True


def _note(history: History, kind: Kind, request: Place) -> None:
    for id_, key, number in parts(request):
        history.add(Entry(kind, id_, key, number))


async def _listening(port: int) -> None:
    """Wait until someone listens there: a call to nobody proves nothing."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.03)
        else:
            writer.close()
            return
