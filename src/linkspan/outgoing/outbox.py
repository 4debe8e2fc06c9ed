"""The relay: takes committed outbox rows to the broker, in order per key, and deletes them once the broker has stored them.

Rows come from memory right after their commit; a sweeper finds those that memory does not know (a crash between commit
and hand-over). What an earlier run left is read at the start, page by page as the broker takes it; until its end is
reached, new rows too are left to these pages, which hold them in the order of commits.

Few rows waiting: single publishes, pipelined. Many: one atomic batch at a time, which costs one sync. A batch in doubt is sent
again singly with the same ids. A key has at most one unit unacknowledged, so whatever fails and is repeated, its order stands
(ADR 1). Topics that opted in go in batches of their own kind (`batching`, ADR 22).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error
from linkspan.outgoing.batching import Batching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.batch import Batches
    from linkspan.ports import Broker, Outgoing, Runtime, Store, Timer

__all__ = ["Relay"]

_log = logging.getLogger("linkspan.outbox")

SINGLES = 32
"""With at most this many messages ready they go singly, above that in a batch; also the bound on singles in flight."""
BATCH = 1000
"""The broker's limit on an atomic batch."""
HIGH_WATER = 5_000
"""Rows waiting at which handlers that publish are held back; they go on at half of it."""
PAGE = 1_000
"""Rows read from the store at a time."""
SWEEP = 5.0
"""Seconds between two looks for rows that memory does not know."""
AGAIN = 1.0
"""Seconds until a store that failed is asked again for what an earlier run left."""
ASIDE = 30.0
"""Seconds until a message that the broker refused is tried again."""
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds to wait after the broker failed once, twice, ... ."""


class Relay:
    """Publishes one store's outbox on one broker."""

    def __init__(self, store: Store, broker: Broker, runtime: Runtime) -> None:
        self._store = store
        self._broker = broker
        self._runtime = runtime
        self._ready: deque[Outgoing] = deque()
        self._doubt: deque[Outgoing] = deque()
        self._keys: dict[tuple[str, str], deque[Outgoing] | None] = {}
        self._known: set[int] = set()
        self._taken = 0
        self._singles = 0
        self._batch: asyncio.Task[None] | None = None
        self._pump_due = False
        self._failures = 0
        self._pause: Timer | None = None
        self._late: list[Outgoing] | None = []
        self._missing: dict[str, list[Outgoing]] = {}
        self._making: set[asyncio.Task[None]] = set()
        self._loaded = 0
        self._committed = 0
        self._loading: asyncio.Task[None] | None = None
        self._load_due = asyncio.Event()
        self._flushes = 0
        self._sweep: Timer | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False
        self.planned: Callable[[float], None] = _nowhere
        self._batching: dict[str, Batching] = {}

    def batch(self, topic: str, batches: Batches) -> None:
        """Send a topic in batches from the start on; call it before `start`."""
        self._batching[topic] = Batching(self, topic, batches, self._runtime)

    @property
    def waiting(self) -> int:
        """Return how many rows the broker has not confirmed yet; while an earlier run's are being loaded, those in memory, 1 at least."""
        return len(self._known) or int(self._loading is not None and not self._loading.done())

    async def start(self) -> None:
        """Load what an earlier run left, oldest first. What is above the high-water mark follows while the service works, without room."""
        for _ in range(0, HIGH_WATER, PAGE):
            if not await self._load_page():
                return
        self._room.clear()
        self._loading = asyncio.get_running_loop().create_task(self._load_rest())

    async def _load_rest(self) -> None:
        """Load a page whenever there is room for one; during a flush no further than to the newest row of this run."""
        more = True
        while more:
            while len(self._known) > HIGH_WATER // 2 or (self._flushes and self._loaded >= self._committed):
                self._load_due.clear()
                await self._load_due.wait()
            try:
                more = await self._load_page()
            except Error as error:
                fields = {"service": self._store.name, "code": error.code.value}
                _log.warning("The outbox could not be read; will try again.", extra=fields)
                await self._runtime.clock.sleep(AGAIN)
        self._note_room()

    async def _load_page(self) -> bool:
        """Load the next rows. Tell whether there may be more; if not, go live with those that were committed during this look."""
        late: list[Outgoing] = []
        self._late = late
        page = await self._store.unsent(self._loaded, PAGE)
        more = len(page) == PAGE or len(late) >= PAGE
        if not more:
            page += [message for message in late if not page or message.position > page[-1].position]
            self._late = None
            self._sweep = self._runtime.clock.call_later(SWEEP, self._begin_sweep)
        for message in page:
            self._accept(message)
        self._loaded = page[-1].position if page else self._loaded
        self._schedule()
        return more

    def take(self, messages: Sequence[Outgoing]) -> None:
        """Take over rows that have just been committed; called in commit order."""
        if self._late is not None:
            self._leave(messages)
            return
        for message in messages:
            self._accept(message)
        self._schedule()

    def _leave(self, messages: Sequence[Outgoing]) -> None:
        """Leave rows to the pages that are being loaded; only a last page, which is not full, needs what came during its look."""
        self._committed = max(self._committed, *(message.position for message in messages))
        if self._committed > self._loaded:
            self._empty.clear()
        if self._late is not None and len(self._late) < PAGE:
            self._late.extend(messages)

    async def room(self) -> None:
        """Wait while the backlog is above its high-water mark: handlers commit faster than a broker stores."""
        await self._room.wait()

    @property
    def full(self) -> bool:
        """Tell whether `room` would wait."""
        return not self._room.is_set()

    async def flush(self) -> None:
        """Wait until every row taken so far is stored by the broker. Rows of an earlier run that are not loaded yet may stay."""
        self._flushes += 1
        try:
            await self._empty.wait()
        finally:
            self._flushes -= 1
            self._load_due.set()

    async def aclose(self) -> None:
        """Stop publishing; rows not confirmed stay in the store for the next start."""
        self._closed = True
        for timer in (self._pause, self._sweep):
            if timer is not None:
                timer.cancel()
        for task in (self._loading, self._batch, self._sweeping, *self._making):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _accept(self, message: Outgoing) -> None:
        if message.position in self._known:
            return
        self._known.add(message.position)
        self._taken = max(self._taken, message.position)
        key = (message.topic, message.key)
        batching = self._batching.get(message.topic) if self._batching else None
        if batching is not None:
            batching.add(message)
        elif not message.key:
            self._ready.append(message)
        elif key in self._keys:
            behind = self._keys[key]
            if behind is None:
                behind = self._keys[key] = deque()
            behind.append(message)
        else:
            self._keys[key] = None
            self._ready.append(message)
        self._empty.clear()
        if len(self._known) >= HIGH_WATER:
            self._room.clear()

    def _schedule(self) -> None:
        if not self._pump_due and self._pause is None and not self._closed and (self._ready or self._doubt or self._batching):
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._closed or self._pause is not None:
            return
        for batching in self._batching.values():
            batching.send()
        while self._doubt and self._singles < SINGLES:
            self._publish(self._doubt.popleft())
        if self._batch is not None:
            return
        if len(self._ready) + self._singles <= SINGLES:
            while self._ready:
                self._publish(self._ready.popleft())
        elif self._singles <= SINGLES // 2:
            self._start_batch()

    def _publish(self, message: Outgoing) -> None:
        self._singles += 1
        self.send(message).add_done_callback(partial(self._published, message))

    def send(self, message: Outgoing) -> asyncio.Future[None]:
        """Publish; whatever goes wrong is in the future."""
        self._runtime.reached("relay.publish.before")
        try:
            return self._broker.publish(message)
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises, the row is in doubt and goes again
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future

    def stored(self, messages: list[Outgoing]) -> None:
        """Take note that the broker has these messages of a batch."""
        self._failures = 0
        self._store.sent(messages)
        self._known.difference_update([message.position for message in messages])
        self._note_room()
        self._schedule()

    def doubted(self, error: BaseException | None) -> None:
        """Pause after a batch that failed."""
        self._failed(error)

    def due(self) -> None:
        """Look soon for what can be sent."""
        self._schedule()

    def _published(self, message: Outgoing, future: asyncio.Future[None]) -> None:
        self._singles -= 1
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Error) and error.code is Code.INVALID_ARGUMENT:
            self._set_aside(message, error)
            return
        if isinstance(error, Error) and error.code is Code.NOT_FOUND:
            self._without_topic(message)
            return
        if future.cancelled() or error is not None:
            self._doubt.append(message)
            self._failed(error)
            return
        self._runtime.reached("relay.publish.after")
        self._failures = 0
        self._done([message])
        self._schedule()

    def _start_batch(self) -> None:
        topic = self._ready[0].topic
        chosen: list[Outgoing] = []
        others: list[Outgoing] = []
        while self._ready and len(chosen) < BATCH:
            message = self._ready.popleft()
            if message.topic != topic:
                others.append(message)
                continue
            chosen.append(message)
            behind = self._keys.get((topic, message.key))
            while behind and len(chosen) < BATCH:
                chosen.append(behind.popleft())
        self._ready.extendleft(reversed(others))
        if len(chosen) == 1:
            self._publish(chosen[0])
            self._schedule()
            return
        self._batch = asyncio.get_running_loop().create_task(self._run_batch(chosen))

    async def _run_batch(self, chosen: list[Outgoing]) -> None:
        try:
            self._runtime.reached("relay.batch.before")
            await self._broker.publish_batch(chosen)
            self._runtime.reached("relay.batch.after")
        except Exception as error:  # noqa: BLE001 - as for a single one
            self._batch = None
            self._resend_singly(chosen, error)
            return
        self._batch = None
        self._failures = 0
        self._done(chosen)
        self._schedule()

    def _resend_singly(self, chosen: list[Outgoing], error: Exception) -> None:
        """Queue a batch in doubt: the first of each key now, the rest of a key behind it again, ahead of newer ones."""
        first: set[tuple[str, str]] = set()
        behind: dict[tuple[str, str], list[Outgoing]] = {}
        for message in chosen:
            key = (message.topic, message.key)
            if not message.key or key not in first:
                first.add(key)
                self._doubt.append(message)
            else:
                behind.setdefault(key, []).append(message)
        for key, messages in behind.items():
            self._keys[key] = deque([*messages, *(self._keys[key] or ())])
        if isinstance(error, Error) and error.code in (Code.ABORTED, Code.NOT_FOUND):
            self._schedule()
        else:
            self._failed(error)

    def _done(self, messages: list[Outgoing]) -> None:
        self._store.sent(messages)
        self._let_go(messages)

    def _let_go(self, messages: Sequence[Outgoing]) -> None:
        """Know these rows no more, and let the next ones of their keys leave."""
        for message in messages:
            self._known.discard(message.position)
        for key in {(message.topic, message.key) for message in messages if message.key}:
            behind = self._keys.get(key)
            if behind:
                self._ready.append(behind.popleft())
            else:
                self._keys.pop(key, None)
        self._note_room()

    def _note_room(self) -> None:
        """Let handlers go on once the backlog is small enough."""
        if len(self._known) <= HIGH_WATER // 2:
            (self._room if self._late is None else self._load_due).set()
        if not self._known and (self._late is None or self._loaded >= self._committed):
            self._empty.set()

    def _failed(self, error: BaseException | None) -> None:
        if self._pause is not None or self._closed:
            return
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        code = error.code.value if isinstance(error, Error) else "canceled"
        _log.warning("Publishing failed; will try again.", extra={"service": self._store.name, "code": code, "waiting": self.waiting})
        self._pause = self._runtime.clock.call_later(pause, self._resume)

    def _set_aside(self, message: Outgoing, error: Error) -> None:
        """Hold a message that the broker will not have, and its key; the others go on. It is tried again in case the broker changes."""
        fields = {"service": self._store.name, "id": message.id, "topic": message.topic, "code": error.code.value}
        _log.error("The broker refuses a message; its key waits.", extra=fields)
        self._runtime.clock.call_later(ASIDE, self._try_again, message)
        self._schedule()

    def _without_topic(self, message: Outgoing) -> None:
        """Have a message wait for its topic, which is not there: who reads it has never started. Other topics go on."""
        waiting = self._missing.setdefault(message.topic, [])
        waiting.append(message)
        if len(waiting) == 1:
            task = asyncio.get_running_loop().create_task(self._make(message.topic))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        self._schedule()

    async def _make(self, topic: str) -> None:
        """Create a topic, so that its reader finds what was sent before it started; where that may not be done, try again later."""
        try:
            await self._broker.declare([topic], [])
        except Error as error:
            fields = {"service": self._store.name, "topic": topic, "code": error.code.value, "waiting": len(self._missing[topic])}
            _log.error("A topic is not there and cannot be made; its messages wait: run 'linkspan broker apply'.", extra=fields)
            await self._runtime.clock.sleep(ASIDE)
        self._doubt.extend(self._missing.pop(topic))
        self._schedule()

    def _try_again(self, message: Outgoing) -> None:
        self._doubt.append(message)
        self._schedule()

    def _resume(self) -> None:
        self._pause = None
        self._schedule()

    def _begin_sweep(self) -> None:
        self._sweeping = asyncio.get_running_loop().create_task(self._look_for_lost())

    async def _look_for_lost(self) -> None:
        """Find rows that were committed but never handed over; those above the newest taken one are still on their way."""
        newest = self._taken
        try:
            for message in await self._store.unsent(0, PAGE):
                if message.position <= newest and message.position not in self._known and not self._store.deleting(message.position):
                    self._accept(message)
        except Error as error:
            _log.warning("The sweep of the outbox failed.", extra={"service": self._store.name, "code": error.code.value})
        self._schedule()
        self._sweep = self._runtime.clock.call_later(SWEEP, self._begin_sweep)


def _nowhere(_due: float) -> None:
    """Stand in until a timetable is told of committed messages that leave later."""
