"""The relay of a store that several instances share: each publishes the rows of its own lanes, whoever committed them.

Rows are not taken from memory: another instance may have committed an earlier one of the same key. A commit wakes the relay, here or,
by the store's own means, in another process; it then selects what is unsent of its lanes, which per key is the order of commits. A
relay that stood still while its lanes went to another publishes nothing more once it runs again; what it had under way arrives
twice at most, under the same ids, and behind the mark of its key it is nothing new to a consumer.

While the broker is away, what is committed is not read: rows that could not leave would be read again with each commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from linkspan.envelope import LANES
from linkspan.errors import Error, SetupError
from linkspan.lanes import Lanes
from linkspan.outgoing.outbox import HIGH_WATER, PAGE, Relay
from linkspan.ports import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from linkspan.batch import Batches
    from linkspan.lanes import Fence
    from linkspan.ports import Broker, Outgoing, Runtime, Store, Timer

__all__ = ["SharedRelay"]

_log = logging.getLogger("linkspan.outbox")

SWEEP = 1.0
"""Seconds between two looks where nobody woke us: a wake-up may be lost."""
AGAIN = 0.2
"""Seconds until a store that failed is asked again."""
FINISHING = 5.0
"""Seconds that rows on their way get to arrive before their lane is another's."""
LOOKS = 32
"""Looks between two answers of the broker while rows wait for it: no more rows leave singly before one comes, so newer ones can wait."""
TURN = 0.02
"""Seconds between two looks whether they have."""

COUNT = "select count(*) from (select 1 from linkspan_outbox limit ?) as first"
"""No further than it matters: counting a million rows takes a tenth of a second."""


class SharedRelay(Relay):
    """Publishes the rows of this instance's lanes."""

    def __init__(self, store: Store, broker: Broker, runtime: Runtime, instance: str) -> None:
        super().__init__(store, broker, runtime)
        self.lanes = Lanes(store, OUTBOX, instance, runtime, self)
        self._mine: set[int] = set()
        self._fetching: asyncio.Task[None] | None = None
        self._again = False
        self._look: Timer | None = None
        self._lane_of: dict[int, int] = {}
        self._stale = False
        self._counted = 0.0
        self._looks = 0

    def batch(self, topic: str, batches: Batches) -> None:
        """Send a topic in batches of one lane each."""
        if batches.mixed:
            raise SetupError(
                f"Topic '{topic}' cannot mix lanes in a batch, since several instances share its outbox: leave out mixed=True."
            )
        super().batch(topic, batches)

    async def start(self) -> None:
        """Take lanes and begin with what is unsent of them."""
        self._store.on_wake(self._wake)
        await self.lanes.start()
        self._tick()

    def take(self, messages: Sequence[Outgoing]) -> None:
        """Hear that rows were committed here; those of other lanes are left to whoever has them."""
        if any(message.lane in self._mine for message in messages):
            self._wake()

    async def flush(self) -> None:
        """Wait until what was committed before, of the lanes that are ours, is stored by the broker."""
        self._wake()
        while self._fetching is not None or self._known:
            if self._fetching is not None:
                await asyncio.wait([self._fetching])
            await self._empty.wait()

    async def aclose(self) -> None:
        """Stop publishing and give the lanes back."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await super().aclose()
        await self.lanes.aclose()

    # --- lanes ---

    async def gain(self, fences: Mapping[int, Fence]) -> None:
        """Begin with these lanes."""
        self._mine |= set(fences)
        self._wake()

    def beware(self) -> None:
        """Do nothing: publishing ends no process."""

    def lose(self, lanes: Collection[int]) -> None:
        """Forget the rows of these lanes but those that are on their way."""
        self._mine.difference_update(lanes)
        for key, behind in self._keys.items():
            if behind and behind[0].lane in lanes:
                for message in behind:
                    self._known.discard(message.position)
                    self._lane_of.pop(message.position, None)
                self._keys[key] = None
        self._stale = True
        self._let_go([message for message in self._doubt if message.lane in lanes])
        self._doubt = deque(message for message in self._doubt if message.lane not in lanes)
        self._drop_batches()

    async def give_up(self, lanes: Collection[int]) -> None:
        """Forget the rows of these lanes, and wait for those that are on their way."""
        self.lose(lanes)
        last = self._runtime.clock.monotonic() + FINISHING
        while any(lane in lanes for lane in self._lane_of.values()) and self._runtime.clock.monotonic() < last:
            await self._runtime.clock.sleep(TURN)

    # --- rows ---

    def _tick(self) -> None:
        if not self._closed:
            self._stale = any(lane not in self._mine for lane in self._lane_of.values())
            self._look = self._runtime.clock.call_later(SWEEP, self._tick)
            self._looks = min(self._looks, LOOKS - 1)
            self._again = True
            self._begin_fetch()

    def _wake(self) -> None:
        self._again = True
        if not self._held_up:
            self._begin_fetch()

    def _begin_fetch(self) -> None:
        if self._fetching is None and not self._closed:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    @property
    def _held_up(self) -> bool:
        """Tell whether a look is of no use: during a pause nothing leaves, and while the broker is silent not much."""
        return bool(self._known) and (self._pause is not None or self._looks >= LOOKS)

    def _resume(self) -> None:
        """Go on after a pause: with one look at what was committed meanwhile, and with more once the broker answers."""
        super()._resume()
        self._looks = LOOKS - 1
        if self._again:
            self._wake()

    def due(self) -> None:
        """Look soon for what can be sent: the broker has answered."""
        super().due()
        self._answered()

    def _set_aside(self, message: Outgoing, error: Error) -> None:
        super()._set_aside(message, error)
        self._answered()

    def _answered(self) -> None:
        """Read what was committed meanwhile, when there is room for it."""
        self._looks = 0
        if self._again and len(self._known) <= PAGE // 2:
            self._wake()

    async def _fetch(self) -> None:
        """Select what is unsent, until nobody has woken us meanwhile."""
        try:
            while self._again and self._mine and len(self._known) < PAGE and not self._held_up:
                limit = PAGE + len(self._known)
                self._again = False
                self._looks += 1
                page = await self._store.unsent(0, limit, frozenset(self._mine))
                for message in page:
                    if message.lane in self._mine and not self._store.deleting(message.position):
                        self._accept(message)
                self._schedule()
                self._again = self._again or len(page) == limit
                await self._press(behind=len(page) == limit)
            if self._held_up or len(self._known) >= PAGE:
                await self._press(behind=True)
        except Error as error:
            _log.warning("The outbox could not be read; will try again.", extra={"service": self._store.name, "code": error.code.value})
            self._runtime.clock.call_later(AGAIN, self._wake)
        finally:
            self._fetching = None
            if not self._known:
                self._empty.set()

    async def _press(self, *, behind: bool) -> None:
        """Hold handlers that publish back while all the store's rows together are too many."""
        now = self._runtime.clock.monotonic()
        if behind and now < self._counted + SWEEP:
            return
        self._counted = now
        rows = (await self._store.read(COUNT, (HIGH_WATER,)))[0][0] if behind else 0
        if rows >= HIGH_WATER:
            self._room.clear()
        elif rows <= HIGH_WATER // 2:
            self._room.set()

    def _note_room(self) -> None:
        """Leave it to the next look: what waits here is not all that waits."""

    def _accept(self, message: Outgoing) -> None:
        if message.position not in self._known:
            self._lane_of[message.position] = message.lane
            super()._accept(message)

    def _let_go(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            self._lane_of.pop(message.position, None)
        super()._let_go(messages)
        while self._stale and (stale := [message for message in self._ready if message.lane not in self._mine]):
            self._ready = deque(message for message in self._ready if message.lane in self._mine)
            for message in stale:
                self._lane_of.pop(message.position, None)
            super()._let_go(stale)
        self._answered()

    def _pump(self) -> None:
        """Publish, unless our own clock says that the lanes may be another's."""
        if self.lanes.alive:
            self._drop_batches()
            super()._pump()
        else:
            self._pump_due = False

    def _drop_batches(self) -> None:
        if self._stale and self._batching:
            others = [lane for lane in range(LANES) if lane not in self._mine]
            dropped = [message for batching in self._batching.values() for message in batching.drop(others)]
            self._let_go(dropped)

    def stored(self, messages: list[Outgoing]) -> None:
        """Take note that the broker has these messages of a batch."""
        super().stored(messages)
        self._let_go(messages)

    def _publish(self, message: Outgoing) -> None:
        if message.lane in self._mine:
            super()._publish(message)
        else:
            self._let_go([message])
