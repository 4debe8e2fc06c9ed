"""The relay's way with a topic that is published in batches: whatever waits while the last batch is under way goes in the next one.

Nobody waits for a timer: a message that comes alone leaves at once, as it is. The messages of a lane leave one unit after the other,
and a unit in doubt goes again as it was, with the same id, before anything newer; so order per key stands (ADR 1, ADR 22).
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from linkspan.batch import Batches, dictionaries_of, pack
from linkspan.envelope import LANES
from linkspan.errors import Code, Error
from linkspan.zstd import Packer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from linkspan.ports import Outgoing, Runtime

__all__ = ["Batching", "Outlet"]

_log = logging.getLogger("linkspan.outbox")

FEW = 32
"""With at most this many messages waiting or under way the lanes go side by side; above that one after the other, in fuller batches."""
GONE = 1000
"""Rows that the broker has, at which they are deleted although others wait: rows of one lane lie far apart in the table."""
MIXED = 0
"""The lane in which all messages travel whose lanes are mixed, so that one instance of each reader has them all, in order."""
ASIDE = 30.0
"""Seconds until a message that the broker refused is tried again."""


class Outlet(Protocol):
    """What it needs of the relay."""

    def send(self, message: Outgoing) -> asyncio.Future[None]:
        """Publish; whatever goes wrong is in the future."""
        ...

    def stored(self, messages: list[Outgoing]) -> None:
        """Take note that the broker has these."""
        ...

    def doubted(self, error: BaseException | None) -> None:
        """Take note that a publish failed; `Batching.send` follows after a pause."""
        ...

    def due(self) -> None:
        """Call `Batching.send` soon, unless there is a pause or an end."""
        ...


class Batching:
    """Publishes one topic of one store's outbox."""

    def __init__(self, outlet: Outlet, topic: str, batches: Batches, runtime: Runtime) -> None:
        self._outlet = outlet
        self._batches = batches
        self._runtime = runtime
        self._packer = Packer(*dictionaries_of(topic)[:1])
        self._waiting: list[deque[Outgoing]] = [deque() for _ in range(LANES)]
        self._turns: deque[int] = deque()
        self._queued: set[int] = set()
        self._doubt: dict[int, tuple[Outgoing, list[Outgoing]]] = {}
        self._flying = 0
        self._count = 0
        self._most = batches.size
        self._aside: dict[str, list[Outgoing]] = {}
        self._gone: list[Outgoing] = []

    def add(self, message: Outgoing) -> None:
        """Take a message, in the order of commits; `send` follows when all that came together are here."""
        if self._aside and message.key in self._aside:
            self._aside[message.key].append(message)
            return
        lane = MIXED if self._batches.mixed else message.lane
        self._count += 1
        self._waiting[lane].append(message)
        if lane not in self._queued:
            self._queued.add(lane)
            self._turns.append(lane)

    def drop(self, lanes: Collection[int]) -> list[Outgoing]:
        """Forget what waits in these lanes, which are not mixed, and return it; what is under way has its end first."""
        dropped: list[Outgoing] = []
        for lane in lanes:
            _, chosen = self._doubt.pop(lane, (None, ()))
            dropped += [*chosen, *self._waiting[lane]]
            self._waiting[lane].clear()
            if lane in self._turns:
                self._turns.remove(lane)
                self._queued.discard(lane)
        self._count -= len(dropped)
        for key in [key for key, messages in self._aside.items() if messages[0].lane in lanes]:
            dropped += self._aside.pop(key)
        self._hand_over()
        return dropped

    def send(self) -> None:
        """Send what may go now."""
        while self._turns and (not self._flying or self._count <= FEW):
            lane = self._turns.popleft()
            unit, chosen = self._doubt.pop(lane) if lane in self._doubt else self._next(self._waiting[lane])
            self._flying += 1
            self._outlet.send(unit).add_done_callback(partial(self._sent, lane, unit, chosen))

    def _next(self, waiting: deque[Outgoing]) -> tuple[Outgoing, list[Outgoing]]:
        """Take as many as fit, from the front; one goes as it is, for whoever reads it."""
        chosen = [waiting.popleft()]
        size = _size(chosen[0])
        while waiting and len(chosen) < self._batches.events and (size := size + _size(waiting[0])) <= self._most:
            chosen.append(waiting.popleft())
        unit = chosen[0] if len(chosen) == 1 else pack(chosen, self._packer, self._runtime.clock.now())
        return replace(unit, lane=MIXED) if self._batches.mixed else unit, chosen

    def _sent(self, lane: int, unit: Outgoing, chosen: list[Outgoing], future: asyncio.Future[None]) -> None:
        self._flying -= 1
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Error) and error.code is Code.INVALID_ARGUMENT:
            self._refused(lane, chosen, error)
        elif error is not None or future.cancelled():
            self._doubt[lane] = unit, chosen
            self._turns.appendleft(lane)
            self._outlet.doubted(error)
        else:
            self._runtime.reached("relay.publish.after")
            self._count -= len(chosen)
            self._go_on(lane)
            self._gone += chosen
            self._outlet.due()
        self._hand_over()

    def _hand_over(self) -> None:
        """Let rows that the broker has be deleted, once they are many or nothing else is to come."""
        if self._gone and (not self._count or len(self._gone) >= GONE):
            gone, self._gone = self._gone, []
            self._outlet.stored(gone)

    def _go_on(self, lane: int) -> None:
        if self._waiting[lane]:
            self._turns.append(lane)
        else:
            self._queued.discard(lane)

    def _refused(self, lane: int, chosen: list[Outgoing], error: Error) -> None:
        """Make smaller batches from now on; a single message that the broker will not have waits, with its key, and the others go on."""
        waiting = self._waiting[lane]
        fields = {"topic": chosen[0].topic, "code": error.code.value}
        if len(chosen) > 1:
            self._most = max(1, sum(map(_size, chosen)) // 2)
            _log.warning("The broker refuses a batch; smaller ones from now on.", extra={**fields, "bytes": self._most})
            waiting.extendleft(reversed(chosen))
        else:
            _log.error("The broker refuses a message; its key waits.", extra={**fields, "id": chosen[0].id})
            key = chosen[0].key
            behind = [message for message in waiting if message.key == key]
            self._waiting[lane] = deque(message for message in waiting if message.key != key)
            self._aside[key] = [*chosen, *behind]
            self._count -= len(self._aside[key])
            self._runtime.clock.call_later(ASIDE, self._again, lane, key)
        self._go_on(lane)
        self._outlet.due()

    def _again(self, lane: int, key: str) -> None:
        messages = self._aside.pop(key, [])
        if not messages:
            return
        self._count += len(messages)
        self._waiting[lane].extendleft(reversed(messages))
        if lane not in self._queued:
            self._queued.add(lane)
            self._turns.append(lane)
        self._outlet.due()


def _size(message: Outgoing) -> int:
    return len(message.headers) + len(message.data)
