"""The child's half: a loop over commands, and the two ways to count operations."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import uvloop

from benchmarks.harness import Meter, wire_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Commands = Mapping[str, Callable[..., Awaitable[dict[str, Any] | None]]]


def main(commands: Commands) -> None:
    """Serve commands on uvloop (which every side gets) until stdin ends."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(commands))


async def _serve(commands: Commands) -> None:
    # Answers go to the real stdout; anything a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            answer = await (_WIRE | dict(commands))[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001 - the parent reports it and goes on
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer or {}) + "\n")


async def wire(port: int) -> dict[str, Any]:
    """Say how many bytes have passed between this process and a port so far."""
    return {"bytes": wire_bytes(port)}


kept: set[asyncio.Task[None]] = set()
"""What goes on until the process ends."""
_WIRE = {"wire": wire}


async def closed_loop(callers: int, operations: int, operation: Callable[[int], Awaitable[Any]]) -> None:
    """Keep `callers` operations in flight until `operations` are done."""
    numbers = iter(range(operations))

    async def caller() -> None:
        for number in numbers:
            await operation(number)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def timed_loop(callers: int, operations: int, operation: Callable[[int], Awaitable[Any]], pids: dict[str, int]) -> dict[str, Any]:
    """Warm up with an eighth, then measure `operations` with `callers` in flight."""
    await closed_loop(callers, operations // 8, operation)
    meter = Meter(pids)
    meter.start()
    await closed_loop(callers, operations, operation)
    return meter.stop(operations)


class Tally:
    """Counts handled messages and measures from the `skip`-th to the `skip + measured`-th.

    A consumer reads ahead. Beginning after some messages and ending before the last one leaves
    the same read-ahead on both ends of the measured stretch.
    """

    def __init__(self, skip: int, measured: int, total: int, pids: dict[str, int]) -> None:
        self._meter = Meter(pids)
        self._first, self._last, self._total = skip, skip + measured, total
        self._seen = 0
        self._result: dict[str, Any] = {}
        self.done = asyncio.Event()
        self._meter.start()  # counts from here when `skip` is 0

    def hit(self) -> None:
        """Count one handled message."""
        seen = self._seen = self._seen + 1
        if seen == self._first:
            self._meter.start()
        if seen == self._last:
            self._result = self._meter.stop(self._last - self._first)
        if seen == self._total:
            self.done.set()

    def check(self, total: int) -> None:
        """Raise unless exactly `total` messages were handled: a lost or repeated one makes a figure worthless."""
        if self._seen != total:
            message = f"handled {self._seen} messages, expected {total}"
            raise RuntimeError(message)

    async def result(self) -> dict[str, Any]:
        """Wait for the last message and give the measurement."""
        await self.done.wait()
        return self._result


class Counting:
    """What each consumer does for the harness beside its own work: it counts what it has handled, in `_tally`."""

    def __init__(self) -> None:
        self._tally: Tally | None = None

    async def expect(self, skip: int, measured: int, total: int, pids: dict[str, int]) -> None:
        """Count from now on; CPU of this process and of those in `pids`."""
        self._tally = Tally(skip, measured, total, {"consumer": os.getpid()} | pids)

    async def result(self) -> dict[str, Any]:
        """Wait for the last expected message."""
        assert self._tally
        return await self._tally.result()
