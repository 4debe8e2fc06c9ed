"""A tap sees all of a topic in its order: what the server had to leave out is asked for again, before anything behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.brokers.nats_tap import NatsTap
from linkspan.testing.clock import fake_runtime, settle

if TYPE_CHECKING:
    from linkspan.brokers.nats_link import Receive
    from linkspan.ports import Seen


class Server:
    """Plays the server's side of consumers that are pushed: remembers what was asked for, and sends what a test says."""

    def __init__(self) -> None:
        self.runtime, _ = fake_runtime()
        self.admin = self.link = self
        self.asked: list[dict[str, Any]] = []
        self._receive: Receive

    def inbox(self) -> str:
        return f"inbox.{len(self.asked)}"

    async def listen(self, _subject: str, receive: Receive) -> Server:
        self._receive = receive
        return self

    async def close(self) -> None:
        """End a listener."""

    async def request(self, _subject: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["config"])
        return {"num_pending": 3}

    async def send(self, sequence: int, count: int) -> None:
        """Send a message of the stream as the so-manieth of the consumer."""
        self._receive(b"shop", b"$JS.ACK.shop.tap.1.%d.%d.1000000000.0" % (sequence, count), b"", b"%d" % sequence)
        await settle()


async def test_a_message_that_was_left_out_comes_before_those_behind_it() -> None:
    seen: list[Seen] = []
    server = Server()
    tap = NatsTap(server, seen.append)  # type: ignore[arg-type]  # the part of a broker that taps use
    await tap.add("shop.events", since=0)
    await server.send(1, 1)
    await server.send(3, 3)
    assert [each.sequence for each in seen] == [1]
    assert [(each["deliver_policy"], each.get("opt_start_seq")) for each in server.asked] == [("all", None), ("by_start_sequence", 2)]

    await server.send(2, 1)
    await server.send(3, 2)
    assert [each.sequence for each in seen] == [1, 2, 3]
    await tap.aclose()
