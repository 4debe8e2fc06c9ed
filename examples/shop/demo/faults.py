"""What goes wrong in the demo: copies of messages, poison, a slow service, a killed one."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.js import JetStreamContext

from linkspan.envelope import lane_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats.js.api import StreamInfo

    from examples.shop.demo.processes import ServiceProcess
    from linkspan.brokers.embedded import EmbeddedServer

__all__ = ["Faults", "saboteur"]

MANY = 25
"""Messages that a service shall hold when it is killed; fewer if they do not come within a second."""
POISON_KEY = "poison"
"""The poison has a key of its own: a dead letter holds up what comes after it under the same key."""


@dataclass(slots=True)
class Faults:
    """Puts faults in and keeps the record. It speaks to the broker by itself, as a stranger would."""

    log: JetStreamContext
    chance: random.Random
    injected: int = 0
    stopped_by_broker: int = 0
    poisoned: int = 0
    events: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    def note(self, text: str) -> None:
        """Remember what happened when."""
        self.events.append((time.time(), text))

    async def streams(self) -> list[StreamInfo]:
        """Return what the broker says about its streams."""
        return await self.log.streams_info()

    async def duplicate(self, count: int) -> None:
        """Publish messages again that are in the log already, same id, same content.

        Every other copy goes out as its sender would repeat it, so the broker recognises it. The rest comes without the
        broker's own mark, as after a replay or from a mirror: only the receivers' inboxes can tell.
        """
        streams = [stream for stream in await self.streams() if stream.state.messages]
        weights = [stream.state.messages for stream in streams]
        for stream in self.chance.choices(streams, weights, k=count) if streams else []:
            name = stream.config.name or ""
            message = await self.log.get_msg(name, self.chance.randint(stream.state.first_seq, stream.state.last_seq))
            headers: dict[str, str] = message.headers or {}
            kept = {key: value for key, value in headers.items() if not key.startswith("Nats-")}
            if self.injected % 2:
                kept["Nats-Msg-Id"] = kept["ce-id"]
            answer = await self.log.publish(message.subject or "", message.data or b"", headers=kept)
            self.injected += 1
            self.stopped_by_broker += bool(answer.duplicate)

    async def poison(self) -> None:
        """Publish bytes that no protobuf decoder takes, under headers that are in order."""
        headers = {
            "ce-specversion": "1.0",
            "ce-type": "shop.payments.v1.Payments.Charge",
            "ce-source": "/saboteur",
            "ce-datacontenttype": "application/protobuf",
            "ce-id": f"poison-{self.poisoned}",
            "ce-partitionkey": POISON_KEY,
        }
        subject = f"shop.payments.v1.commands.Payments.Charge.{lane_of(POISON_KEY)}"
        await self.log.publish(subject, b"\xff\xff\xff not a message", headers=headers)
        self.poisoned += 1
        self.note("a poison message to payments")

    async def slow(self, service: ServiceProcess, seconds: float) -> None:
        """Let a service crawl for a while."""
        self.note(f"{service.name} slow for {seconds:g} s")
        await service.drag(seconds)

    async def kill(self, service: ServiceProcess, stream: str) -> int:
        """Kill a service while it holds messages that it has not acknowledged; return how many. Then start it again.

        Frozen first, so that what the broker hands over from then on is held for certain, and can be counted.
        """
        held = 0
        service.signal(signal.SIGSTOP)
        for wait in range(500):
            await asyncio.sleep(0.02)
            held = (await self.log.consumer_info(stream, service.name)).num_ack_pending or 0
            if held >= MANY or (held and wait > 50):
                break
        await service.kill()
        self.note(f"{service.name} killed (SIGKILL), {held} messages unacknowledged")
        await asyncio.sleep(1.0)
        await service.start()
        self.note(f"{service.name} started again")
        return held

    async def under_way(self) -> int:
        """Count deliveries that the broker still owes to any service, or has no acknowledgement for."""
        total = 0
        for stream in await self.streams():
            for consumer in await self.log.consumers_info(stream.config.name or ""):
                total += (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
        return total


@asynccontextmanager
async def saboteur(server: EmbeddedServer, seed: int) -> AsyncGenerator[Faults]:
    """Connect to the broker with nats-py, past linkspan."""
    client = Client()
    await client.connect(server.url, user=server.user, password=server.password, name="saboteur")
    try:
        yield Faults(JetStreamContext(client), random.Random(seed))
    finally:
        await client.close()
