"""Whether a process may be given work: each thing that it needs, by name, and what is wrong with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from linkspan.errors import Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from linkspan.ports import Broker, Store

__all__ = ["OK", "Backlog", "Promise", "Readiness"]

if TYPE_CHECKING:
    Check: TypeAlias = Callable[[], Awaitable[str]]

OK = ""
"""What a check returns when nothing is wrong."""
_PATIENCE = 2.0
"""Seconds that a check may take: probes give up after as many, and something that hangs is not ready."""


class Backlog(Protocol):
    """What an outbox tells of itself."""

    @property
    def full(self) -> bool:
        """Tell whether more waits than its high-water mark allows."""
        ...


class Promise(Protocol):
    """What the engines tell of their durability."""

    def weak(self) -> Mapping[str, str]:
        """Return, by engine, what lowers its promise."""
        ...

    def below(self) -> Mapping[str, str]:
        """Return the engines that are below what was asked for, with their level."""
        ...


class Waiter(Protocol):
    """What may wait for something of its own while the process is well."""

    def waiting(self) -> Mapping[str, str]:
        """Return what waits, and for what."""
        ...


class Readiness:
    """The checks of one app, and where it is in its life. A check returns `OK`, or what is wrong in a few words.

    `started` and `draining` are set by the app. `changed` wakes those who wait for a change of these two.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._promise: Promise | None = None
        self._waiters: Sequence[Waiter] = ()
        self.started = False
        self.draining = False
        self._changed = asyncio.Event()

    def start(
        self, broker: Broker, stores: Iterable[tuple[Store, Backlog]], promise: Promise | None = None, waiters: Iterable[Waiter] = ()
    ) -> None:
        """Say that the app runs, and what has to be well for it to be given work."""
        self._promise = promise
        self._waiters = tuple(waiters)
        if promise is not None:
            self._checks["durability"] = _durability_check(promise)
        self._checks["broker"] = _broker_check(broker)
        for store, outbox in stores:
            self._checks[f"store {store.name}"] = _store_check(store)
            self._checks[f"outbox {store.name}"] = _outbox_check(outbox)
        self.started, self.draining = True, False
        self._wake()

    def drain(self) -> None:
        """Say that the app ends: not ready from now on, whatever its checks say."""
        self.draining = True
        self._wake()

    def forget(self) -> None:
        """Be as before the start."""
        self._checks, self._promise, self._waiters = {}, None, ()
        self.started = self.draining = False

    async def report(self) -> Mapping[str, str]:
        """Return what is wrong by the name of each check, `OK` where nothing is."""
        names = list(self._checks)
        found = await asyncio.gather(*(self._outcome(self._checks[name]) for name in names))
        life = "draining" if self.draining else OK if self.started else "starting"
        return {"app": life, **dict(zip(names, found, strict=True))}

    def notes(self) -> Mapping[str, str]:
        """Return, by engine, why an acknowledgement is worth less than it could be; that alone makes nobody unready."""
        return {} if self._promise is None else self._promise.weak()

    def waiting(self) -> Mapping[str, str]:
        """Return the consumers that wait for what their handlers depend on, and why; they too make nobody unready."""
        return {name: why for each in self._waiters for name, why in each.waiting().items()}

    async def ready(self) -> bool:
        """Tell whether the process may be given work."""
        if self.draining or not self.started:
            return False
        return not any((await self.report()).values())

    async def changed(self, timeout: float) -> None:
        """Wait until the app starts or ends, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @staticmethod
    async def _outcome(check: Check) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await check()
        except TimeoutError:
            return f"no answer within {_PATIENCE:g} s"
        except Error as error:
            return error.code.value


def _durability_check(promise: Promise) -> Check:
    """Return the check that no engine has fallen below what was asked for."""

    async def check() -> str:
        return ", ".join(f"{name} promises '{level}' only" for name, level in promise.below().items())

    return check


def _broker_check(broker: Broker) -> Check:
    """Return the check that the broker is connected."""

    async def check() -> str:
        return OK if broker.connected else "not connected"

    return check


def _store_check(store: Store) -> Check:
    """Return the check that the store answers."""

    async def check() -> str:
        await store.read("select 1")
        return OK

    return check


def _outbox_check(outbox: Backlog) -> Check:
    """Return the check that the outbox is below its high-water mark."""

    async def check() -> str:
        return "above its high-water mark" if outbox.full else OK

    return check
