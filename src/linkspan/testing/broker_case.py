"""What the broker suite works with: what a broker can do, one scenario's topic and connections, waiting with a deadline."""

# ruff: noqa: D102 - the hooks are described in BrokerContract; scenarios assert

from __future__ import annotations

import asyncio
import functools
import unittest
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from linkspan.envelope import Envelope, prefix, render
from linkspan.errors import Code, Error
from linkspan.ports import Outgoing
from linkspan.testing.collector import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from linkspan.ports import Broker, Runtime

__all__ = ["Capabilities", "Case", "Suite", "needs", "numbers", "raises", "within"]


async def within(work: Awaitable[Any]) -> Any:
    """Wait for something, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def raises(code: Code, work: Awaitable[Any]) -> Error:
    """Wait for an `Error` with this code."""
    try:
        await within(work)
    except Error as error:
        if error.code is not code:
            raise
        return error
    raise AssertionError(f"An error '{code.value}' was expected, none was raised.")


def numbers(start: int, stop: int) -> list[bytes]:
    """Return the payloads start..stop-1."""
    return [str(number).encode() for number in range(start, stop)]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do, and which of the suite's hooks are filled in.

    `restart`: `restart_server`; `outage`: `stop_server` and `start_server`; `foreign`: `publish_foreign`; `drift`: `make_drift`;
    `batch`: atomic batches; `delay`: nacks with a delay; `dedupe`: ids are remembered; `history`: a new group gets what was stored
    before it; `lanes`: a group can be read lane by lane; `replay`: a lost connection brings everything unsettled again (where it does
    not, what is in hand stays so); `atomic`: a batch is stored whole or not at all.
    `max_payload` is the largest message in bytes, headers and data, that is sure to be accepted.
    """

    restart: bool = True
    outage: bool = True
    foreign: bool = True
    drift: bool = True
    batch: bool = True
    delay: bool = True
    dedupe: bool = True
    history: bool = True
    lanes: bool = True
    replay: bool = True
    atomic: bool = True
    max_payload: int = 1_000_000


def needs(*names: str) -> Callable[[Callable[[Any], Awaitable[None]]], Callable[[Any], Coroutine[Any, Any, None]]]:
    """Skip a scenario, by the name of the capability, where the broker lacks it."""

    def decorate(scenario: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
        @functools.wraps(scenario)
        async def run(self: Suite) -> None:
            lacking = [name for name in names if not getattr(self.capabilities, name)]
            if lacking:
                raise unittest.SkipTest(f"this broker lacks: {', '.join(lacking)}")
            await scenario(self)

        run.__dict__["needs"] = names
        return run

    return decorate


class Suite(Protocol):
    """What a scenario sees of `BrokerContract`; the hooks are described there."""

    capabilities: ClassVar[Capabilities]

    def case(self) -> AbstractAsyncContextManager[Case]: ...
    def make_broker(self, runtime: Runtime) -> Broker: ...
    async def restart_server(self) -> None: ...
    async def stop_server(self) -> None: ...
    async def start_server(self) -> None: ...
    async def publish_foreign(self, topic: str, headers: bytes, data: bytes) -> None: ...
    async def make_drift(self, topic: str, group: str) -> None: ...


class Case:
    """What one scenario works with: a topic of its own, brokers that are closed at the end, and short ways to send."""

    def __init__(self, contract: Suite, runtime: Runtime) -> None:
        self.contract = contract
        self.runtime = runtime
        self.topic = self.new_topic()
        self.brokers: list[Broker] = []

    def new_topic(self) -> str:
        """Return a topic name that was never used before."""
        return f"suite.t{self.runtime.ids.new().replace('-', '')}.events"

    def connection(self) -> Broker:
        """Return a broker that is not open yet."""
        broker = self.contract.make_broker(self.runtime)
        self.brokers.append(broker)
        return broker

    async def broker(self, *groups: str, topic: str = "") -> Broker:
        """Connect, and declare the case's topic with these groups."""
        broker = self.connection()
        await broker.open()
        await broker.declare([topic or self.topic], [(topic or self.topic, group) for group in groups])
        return broker

    def message(self, data: bytes | str, **changes: Any) -> Outgoing:
        """Return a message with a fresh id and a canonical block."""
        id_ = self.runtime.ids.new()
        envelope = Envelope(id_, "suite", "suite.Happened", key="k", time="2026-01-01T00:00:00.000Z")
        block = render(prefix("suite.Happened", "suite"), envelope)
        payload = data.encode() if isinstance(data, str) else data
        message = Outgoing(self.topic, "Happened", 7, id_, "k", block, payload)
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def messages(self, start: int, stop: int, *, lanes: int = 0) -> list[Outgoing]:
        """Return messages with the payloads start..stop-1, all in one lane or spread over `lanes`."""
        return [self.message(str(number), lane=number % lanes if lanes else 7) for number in range(start, stop)]

    async def send(self, broker: Broker, messages: list[Outgoing]) -> None:
        """Publish all at once and wait until each is stored."""
        await within(asyncio.gather(*[broker.publish(message) for message in messages]))

    async def publish_until_stored(self, broker: Broker, messages: list[Outgoing]) -> None:
        """Do what a relay does: send again, with the same ids and in order, what was not confirmed."""
        waiting = messages
        async with asyncio.timeout(PATIENCE):
            while waiting:
                outcomes = await asyncio.gather(*[broker.publish(message) for message in waiting], return_exceptions=True)
                first = next((place for place, outcome in enumerate(outcomes) if outcome is not None), len(waiting))
                unexpected = [
                    each
                    for each in outcomes
                    if isinstance(each, BaseException) and not (isinstance(each, Error) and each.code is Code.UNAVAILABLE)
                ]
                assert not unexpected, unexpected
                waiting = waiting[first:]
                if waiting:
                    await self.runtime.clock.sleep(0.02)
