"""Lanes: which instance of a service does what, where several share a store (ADR 16).

A key has one of 64 lanes. The store says whose each lane is, with a lease and an epoch; whoever has a lane reads it on all of the
service's topics and runs its held letters. An instance that ends gives its lanes back at once; one that is killed loses them when
its lease ends; one that stood still meanwhile finds that its commits are refused, since its lanes have another epoch by then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Protocol

from linkspan.errors import Error

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from linkspan.ports import Runtime, Store, Tenure, Timer

__all__ = ["LEASE", "Fence", "LaneHolder", "Lanes", "instance_name"]

_log = logging.getLogger("linkspan.lanes")

LEASE = 6.0
"""Seconds after its last sign of life at which an instance loses its lanes."""
BEAT = 1.5
"""Seconds between two signs of life."""
EAGER = 0.5
"""The same while lanes are missing or to be given up."""
BEGINNING = 30.0
"""Seconds that beginning with lanes may take; signs of life go on meanwhile."""

Fence = tuple[str, int, int]
"""Service, lane, epoch: see `Unit.fence`."""


class LaneHolder(Protocol):
    """Who works on lanes."""

    async def gain(self, fences: Mapping[int, Fence]) -> None:
        """Begin with these lanes. Raises `Error` when some could not be begun: they are gained again at the next beat."""
        ...

    def beware(self) -> None:
        """Be careful with what comes now: it may be what ended the instance that had it before."""
        ...

    def lose(self, lanes: Collection[int]) -> None:
        """Drop these lanes at once: they are another's."""
        ...

    async def give_up(self, lanes: Collection[int]) -> None:
        """Take nothing more of these lanes, and finish what was started."""
        ...


class Lanes:
    """Holds the lanes of one service for one instance: a sign of life every other second, and what follows from the answer."""

    def __init__(self, store: Store, service: str, instance: str, runtime: Runtime, holder: LaneHolder) -> None:
        self._store = store
        self._service = service
        self._instance = instance
        self._clock = runtime.clock
        self._holder = holder
        self.held: dict[int, int] = {}
        self._begun: set[int] = set()
        self._leaving: set[int] = set()
        self._left: set[int] = set()
        self._share = 0
        self._until = 0.0
        self._lapses = self._answered = 0  # leases that ended by our own clock, and how many of them the store has been told of
        self._expiry: Timer | None = None
        self._loop: asyncio.Task[None] | None = None
        self._giving: asyncio.Task[None] | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Tell whether the lease of our lanes goes on, by our own clock."""
        return self._clock.monotonic() < self._until

    async def start(self) -> None:
        """Take what is free now, begin with it, then go on. Raises `Error`."""
        await self._beat()
        self._loop = asyncio.get_running_loop().create_task(self._go_on(), name=f"linkspan lanes of {self._service}")
        if (beginning := self._beginning) is not None:
            await asyncio.wait([beginning])
            if not beginning.cancelled():
                beginning.result()

    def moved(self, fence: Fence) -> None:
        """Hear that a commit was refused: this lane is another's."""
        _, lane, epoch = fence
        if self.held.get(lane) == epoch:
            self._drop({lane})
            self._soon.set()

    async def aclose(self) -> None:
        """Give all lanes back, so that nobody has to wait for the lease's end. Whoever works on them has finished."""
        for task in (self._loop, self._giving, self._beginning):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._expiry is not None:
            self._expiry.cancel()
        self._drop(set(self.held))
        try:
            await self._store.leave_lanes(self._service, self._instance)
        except Error as error:
            self._log_failure("Lanes could not be given back; they are free when the lease ends.", error)

    async def _go_on(self) -> None:
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(LEASE / 2):
                    await self._beat()
            except Error as error:
                self._log_failure("A sign of life could not be given; will try again.", error)
            except TimeoutError:
                _log.warning("The store took too long for a sign of life; will try again.", extra={"service": self._service})

    async def _pause(self) -> None:
        """Wait for the next beat, or for less where something is to be done."""
        settled = len(self.held) == self._share and len(self._begun) == len(self.held) and not self._left
        timer = self._clock.call_later(BEAT if settled else EAGER, self._soon.set)
        await self._soon.wait()
        timer.cancel()
        self._soon.clear()

    async def _beat(self) -> None:
        left, lapses = set(self._left), self._lapses  # what is given up while the store is asked is told at the next beat
        # What lapsed is taken anew: by its old epoch, commits that are still under way would come true behind what is begun with now.
        keep = set(self.held) - left if left or lapses != self._answered else None
        begun = self._clock.monotonic()
        tenure = await self._store.hold_lanes(self._service, self._instance, keep=keep, lease=LEASE)
        self._extend(begun + LEASE)
        self._left -= left
        if lapses != self._lapses:
            self._soon.set()
            return
        self._answered = lapses
        self._follow(tenure)

    def _extend(self, until: float) -> None:
        self._until = until
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._clock.call_later(max(until - self._clock.monotonic(), 0.0), self._expired)

    def _expired(self) -> None:
        """Stop by our own clock: the store could not be told that we live, and another may have the lanes."""
        self._lapses += 1
        if self.held:
            _log.warning("The lease of all lanes has ended: the store did not answer.", extra={"service": self._service})
            self._drop(set(self.held))

    def _follow(self, tenure: Tenure) -> None:
        """Make the answer true: drop what is gone, begin what is new, give up what is too much."""
        self._drop({lane for lane, epoch in self.held.items() if tenure.lanes.get(lane) != epoch})
        gained = {lane: epoch for lane, epoch in tenure.lanes.items() if lane not in self.held}
        self.held.update(gained)
        self._share = tenure.share
        if gained:
            fields = {"service": self._service, "lanes": len(self.held), "gained": len(gained), "members": tenure.members}
            _log.info("Lanes were taken.", extra=fields)
        if tenure.orphaned:
            _log.warning(
                "Lanes of an instance that fell silent were taken.", extra={"service": self._service, "lanes": len(tenure.orphaned)}
            )
            self._holder.beware()
        self._begin()
        surplus = len(self.held) - len(self._leaving) - tenure.share
        if surplus > 0 and self._giving is None and self._beginning is None:
            chosen = set(sorted(set(self.held) - self._leaving)[-surplus:])
            self._leaving |= chosen
            self._giving = asyncio.get_running_loop().create_task(self._give_up(chosen))

    def _begin(self) -> None:
        """Begin with lanes beside the signs of life: with many lanes and a slow broker it takes longer than these may be apart."""
        fences = {lane: (self._service, lane, epoch) for lane, epoch in self.held.items() if lane not in self._begun}
        if fences and self._beginning is None:
            self._beginning = asyncio.get_running_loop().create_task(self._gain(fences))

    async def _gain(self, fences: Mapping[int, Fence]) -> None:
        try:
            async with asyncio.timeout(BEGINNING):
                await self._holder.gain(fences)
            self._begun.update(fences)  # one that was lost meanwhile would have cancelled this
        except Error as error:
            self._log_failure("Lanes could not be begun; will try again.", error)
        except TimeoutError:
            _log.warning("Lanes took too long to begin; will try again.", extra={"service": self._service, "lanes": len(fences)})
        finally:
            self._beginning = None

    async def _give_up(self, lanes: set[int]) -> None:
        _log.info("Lanes are given up.", extra={"service": self._service, "lanes": len(lanes)})
        try:
            await self._holder.give_up(lanes)
        finally:
            self._left |= lanes & self._leaving & set(self.held)
            self._giving = None
            self._soon.set()

    def _drop(self, lanes: set[int]) -> None:
        if not lanes:
            return
        if self._beginning is not None and not lanes <= self._begun:
            self._beginning.cancel()
            self._soon.set()
        for lane in lanes:
            del self.held[lane]
        self._begun -= lanes
        self._leaving -= lanes
        self._left -= lanes
        self._holder.lose(lanes)

    def _log_failure(self, text: str, error: Error) -> None:
        _log.warning(text, extra={"service": self._service, "code": error.code.value, "reason": error.message})


def instance_name(runtime: Runtime) -> str:
    """Return a name for this process among the instances of a service, for people too: host, process, chance."""
    return f"{socket.gethostname()}-{os.getpid()}-{runtime.ids.new()[-6:]}"
