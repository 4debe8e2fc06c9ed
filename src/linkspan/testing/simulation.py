"""Whole systems in simulated time: processes that crash, a broker that loses answers, in an order that follows from one seed.

    world = World(seed=7, folder=tmp_path)

    async def life(process: Process) -> None:
        async with process.app(make_app()) as app:           # its own clock, chance, ids, broker connection and stores
            ...                                              # work; everything is lost when the process is killed

    orders = world.process("orders", life)                   # begins at once, and again after each crash
    world.run(60.0)                                          # a minute passes in milliseconds

The code under test is the real one: services, relay, consumers, held letters, the SQLite store (its writer a greenlet instead of
a thread). Simulated are time, the order in which processes run, and the broker (`MemoryBroker`, which passes the same
contract suite as the real ones). The same seed gives the same history, byte for byte: `World.digest`. Needs the package `greenlet`.
"""

from __future__ import annotations

import gc
import hashlib
import random
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.errors import Error
from linkspan.ports import Runtime
from linkspan.runtime import RandomIds
from linkspan.testing.sim_loop import SimLoop, Time
from linkspan.testing.sim_store import SimStore

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from linkspan.app import App
    from linkspan.ports import Timer

__all__ = ["Killed", "Process", "SimClock", "World"]

START = 1_700_000_000.0
"""Where simulated time begins: 2023-11-14 22:13:20 UTC."""


class Killed(BaseException):
    """Ends what runs in a process at the point where it dies."""


class SimClock:
    """A process's clock: the world's time, and timers that die with the process."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Return seconds since 1970 UTC."""
        return START + self._loop.time()

    def monotonic(self) -> float:
        """Return seconds since the world began, plus a thousand."""
        return 1_000.0 + self._loop.time()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call in `delay` simulated seconds."""
        return self._loop.call_later(max(delay, 0.0), callback, *args)

    async def sleep(self, delay: float) -> None:
        """Wait `delay` simulated seconds."""
        future: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(max(delay, 0.0), _finish, future)
        try:
            await future
        finally:
            timer.cancel()


class Process:
    """One simulated process. `life` runs from its start to its death, and again after each."""

    def __init__(self, world: World, name: str, life: Callable[[Process], Awaitable[None]]) -> None:
        self.world = world
        self.name = name
        self.lives = 0
        self.alive = False
        self.failure: BaseException | None = None
        self.runtime: Runtime
        self.loop: SimLoop
        self._life = life
        self._apps: list[App] = []
        self._brokers: list[MemoryBroker] = []
        self._die_at = ""
        self._die_after = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin a life."""
        self.lives += 1
        self.alive = True
        self._apps, self._brokers = [], []
        self._die_at = ""
        chance = random.Random(f"{self.world.seed}/{self.name}/{self.lives}")  # noqa: S311 - repeatable on purpose
        self.loop = SimLoop(self.world.time, chance)
        self.loop.set_exception_handler(_unless_killed)
        clock = SimClock(self.loop)
        self.runtime = Runtime(clock, chance, RandomIds(clock, chance), self._reached)
        self.world.note(f"{self.name} starts")
        self._task = self.loop.create_task(self._live())

    async def _live(self) -> None:
        try:
            await self._life(self)
        except Error as error:
            if not error.transient:
                self.failure = error
            self.kill()  # a process that cannot go on ends, and whoever watches it starts it again
        except Exception as error:  # noqa: BLE001 - the world tells whoever runs it
            self.failure = error

    @asynccontextmanager
    async def app(self, make: Callable[..., App]) -> AsyncGenerator[App]:
        """Run an app inside the process; `make` is given `broker`, `runtime` and `data` to make it with."""
        broker = MemoryBroker(runtime=self.runtime, faults=self.world.faults, log=self.world.log)
        self._brokers.append(broker)
        while not self.world.log.up:
            await self.runtime.clock.sleep(0.1)
        await broker.open()
        app = make(broker=broker, runtime=self.runtime, data=self.world.folder)
        app.open_store = self._store
        self._apps.append(app)
        await app.start(listen=False)
        try:
            yield app
        finally:
            if self.alive:
                await app.aclose()
                await broker.aclose()

    def _store(self, url: str, *, name: str, runtime: Runtime, exclusive: bool = True) -> SimStore:
        del exclusive  # nobody else is there
        return SimStore(Path(unquote(urlsplit(url).path.removeprefix("/"))), name=name, runtime=runtime)

    def die_at(self, point: str, passing: int) -> None:
        """Die when a named point (see `linkspan.testing.crash.points`) is passed for the n-th time from now."""
        self._die_at, self._die_after = point, passing

    def _reached(self, point: str) -> None:
        if not self.alive:
            raise Killed
        self.world.note(f"{self.name} {point}")
        if point == self._die_at:
            self._die_after -= 1
            if self._die_after <= 0:
                self.kill()
                raise Killed

    def kill(self) -> None:
        """Die at once: what is not committed in a store or stored by the broker is gone."""
        if not self.alive:
            return
        self.alive = False
        self.world.note(f"{self.name} dies")
        self.world.deaths += 1
        for app in self._apps:
            for store in app.stores.values():
                if isinstance(store, SimStore):
                    store.kill()
        self.world.bury(self, [*self._apps, *self._brokers, self._task])
        for broker in self._brokers:
            broker.cut()


class World:
    """Time, a broker, processes, and the seed from which everything follows that happens to them. Close it, or use `with`."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.time = Time()
        self.chance = random.Random(f"{seed}")  # noqa: S311 - repeatable on purpose
        self.log = MemoryLog()
        self.faults = Faults()
        self.processes: list[Process] = []
        self.deaths = 0
        self.steps = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._graves: list[object] = []
        self._server = SimLoop(self.time, self.chance)
        self.log.soon = self._server.call_soon

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def digest(self) -> str:
        """Return what tells this history from any other: a hash over every named point passed, when, and by whom."""
        return self._digest.hexdigest()

    def note(self, text: str) -> None:
        """Add to the history's digest."""
        self._digest.update(f"{self.time.now:.9f} {text}\n".encode())

    def process(self, name: str, life: Callable[[Process], Awaitable[None]]) -> Process:
        """Add a process and start it."""
        process = Process(self, name, life)
        self.processes.append(process)
        process.start()
        return process

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Call in `delay` seconds, whoever is alive then."""
        self._server.call_later(delay, call, *args)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; with `until`, not longer than it takes to hold. Tell whether it held. Raises what a process's life raised."""
        end = self.time.now + seconds
        count = 0
        while True:
            count += 1
            if until is not None and count % 64 == 0 and until():
                return True
            loops = [self._server, *(process.loop for process in self.processes if process.alive)]
            dues = [(due, loop) for loop in loops if (due := loop.due) is not None]
            ready = [loop for due, loop in dues if due <= self.time.now]
            if not ready:
                following = min((due for due, _ in dues), default=float("inf"))
                if following > end:
                    self.time.now = end
                    return until is not None and until()
                self.time.now = following
                continue
            loop = self.chance.choice(ready) if len(ready) > 1 else ready[0]
            for _ in range(self.chance.randrange(1, 8)):
                self._step(loop)
                if loop.is_closed():
                    break

    def _step(self, loop: SimLoop) -> None:
        self.steps += 1
        with suppress(Killed):
            loop.run_one()
        for process in self.processes:
            if process.failure is not None:
                raise process.failure
            if not process.alive and not process.loop.is_closed():
                process.loop.drop()

    def bury(self, process: Process, remains: list[object]) -> None:
        """Keep what a dead process held until the world ends, so that nothing of it runs on when it is collected."""
        self._graves += [process.loop, *remains]

    def close(self) -> None:
        """End every process, and the world."""
        for process in self.processes:
            process.kill()
            if not process.loop.is_closed():
                process.loop.drop()
        self._server.drop()
        hook, sys.unraisablehook = sys.unraisablehook, _say_nothing
        try:
            self._graves.clear()
            self.processes.clear()
            gc.unfreeze()
            gc.collect()
        finally:
            sys.unraisablehook = hook


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _unless_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


def _say_nothing(_unraisable: object) -> None:
    """Pass over the last words of what was killed."""
