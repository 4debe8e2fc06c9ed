"""A broker that notes what goes through it: what was stored, and which groups are done with what."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from linkspan import envelope as envelopes
from linkspan.errors import Error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Sequence

    from linkspan.ports import Broker, Delivery, Drift, Durability, Outgoing, Subscription

__all__ = ["WatchedBroker"]


class WatchedBroker:
    """Passes everything on to another broker, and keeps a list of the messages that it stored, each id once."""

    def __init__(self, broker: Broker) -> None:
        self.stored: list[Outgoing] = []
        self._broker = broker
        self._ids: dict[str, dict[str, None]] = {}
        self._groups: dict[tuple[str, str], set[str]] = {}

    def unsettled(self) -> list[tuple[str, str]]:
        """Return `(group, id)` of stored messages that a subscribed group is not done with."""
        return [(group, id_) for (topic, group), done in self._groups.items() for id_ in self._ids.get(topic, ()) if id_ not in done]

    def _store(self, message: Outgoing) -> None:
        ids = self._ids.setdefault(message.topic, {})
        if message.id not in ids:
            ids[message.id] = None
            self.stored.append(message)

    # --- the port ---

    @property
    def connected(self) -> bool:
        """Tell whether the broker is."""
        return self._broker.connected

    async def open(self) -> None:
        """Connect."""
        await self._broker.open()

    async def aclose(self) -> None:
        """Close."""
        await self._broker.aclose()

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        """Create what is missing."""
        return await self._broker.declare(topics, groups, lanes=lanes)

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Publish, and note the message when it is stored."""
        future = self._broker.publish(message)

        def noted(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._store(message)

        future.add_done_callback(noted)
        return future

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish together, and note the messages."""
        await self._broker.publish_batch(messages)
        for message in messages:
            self._store(message)

    async def subscribe(
        self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int, lanes: Collection[int] | None = None
    ) -> Subscription:
        """Subscribe, and note what the group acknowledges."""
        done = self._groups.setdefault((topic, group), set())

        def watched(delivery: Delivery) -> None:
            receive(_Watched(delivery, done))

        return await self._broker.subscribe(topic, group, watched, prefetch=prefetch, lanes=lanes)

    async def attest(self, topics: Iterable[str] = (), groups: Iterable[tuple[str, str]] = ()) -> Durability:
        """Ask the broker."""
        return await self._broker.attest(topics, groups)


class _Watched:
    """A delivery whose acknowledgement is noted."""

    __slots__ = ("_delivery", "_done", "data", "headers", "topic")

    def __init__(self, delivery: Delivery, done: set[str]) -> None:
        self.topic = delivery.topic
        self.headers = delivery.headers
        self.data = delivery.data
        self._delivery = delivery
        self._done = done

    @property
    def attempt(self) -> int:
        return self._delivery.attempt

    def ack(self) -> None:
        self._delivery.ack()
        with suppress(Error):  # a foreign message without an id was not stored by us
            self._done.add(envelopes.read(self.headers, self.data).id)

    def nack(self, delay: float = 0.0) -> None:
        self._delivery.nack(delay)

    def beat(self) -> None:
        self._delivery.beat()
