"""The public contract of a broker: subclass `BrokerContract`, fill in the hooks, and run it with pytest.

Scenarios are `async def test_*` methods; run them with any plugin that runs coroutine tests (linkspan's own conftest, anyio, ...).
What a broker cannot do is switched off in `capabilities`: those scenarios are skipped by name, and `BrokerContract.table()` lists them.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from linkspan.runtime import system
from linkspan.testing.broker_case import Capabilities, Case, within
from linkspan.testing.broker_delivery import DeliveryScenarios
from linkspan.testing.broker_lanes import LaneScenarios
from linkspan.testing.broker_outages import OutageScenarios
from linkspan.testing.broker_publishing import PublishingScenarios
from linkspan.testing.broker_settling import SettlingScenarios

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from linkspan.ports import Broker, Runtime

__all__ = ["BrokerContract", "Capabilities"]


class BrokerContract(DeliveryScenarios, SettlingScenarios, PublishingScenarios, LaneScenarios, OutageScenarios):
    """What every broker must do. Override the hooks; each scenario runs inside `serving`, on a topic of its own."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Keep a server up around one scenario."""
        yield

    def make_broker(self, runtime: Runtime) -> Broker:
        """Return a new connection, not opened, to the server of this scenario."""
        raise NotImplementedError

    async def restart_server(self) -> None:
        """Kill the server without warning (SIGKILL) and bring it back at the same address, with its data."""
        raise NotImplementedError

    async def stop_server(self) -> None:
        """Kill the server without warning."""
        raise NotImplementedError

    async def start_server(self) -> None:
        """Bring the stopped server back."""
        raise NotImplementedError

    async def publish_foreign(self, topic: str, headers: bytes, data: bytes) -> None:
        """Store a message as a publisher that knows nothing of linkspan would; `headers` are raw lines, may be empty."""
        raise NotImplementedError

    async def make_drift(self, topic: str, group: str) -> None:
        """Create the topic, and the group with another setting than `declare` would."""
        raise NotImplementedError

    def runtime(self) -> Runtime:
        """Return the clock, random source and ids that the scenarios use."""
        return system()

    @classmethod
    def table(cls) -> dict[str, str]:
        """Return each scenario with its guarantee, or with `not run: ...` where a capability is missing."""
        found: dict[str, str] = {}
        for name in dir(cls):
            scenario = getattr(cls, name)
            if name.startswith("test_"):
                lacking = [each for each in getattr(scenario, "needs", ()) if not getattr(cls.capabilities, each)]
                found[name] = f"not run: lacks {', '.join(lacking)}" if lacking else str(scenario.__doc__)
        return found

    @asynccontextmanager
    async def case(self) -> AsyncGenerator[Case]:
        """Open one scenario and close its brokers."""
        async with self.serving():
            case = Case(self, self.runtime())
            try:
                yield case
            finally:
                for broker in case.brokers:
                    await within(broker.aclose())
