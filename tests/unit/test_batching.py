"""What the relay's batching forgets when lanes go to another instance."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan import Batches, Code, Error
from linkspan.batch import singles
from linkspan.envelope import read
from linkspan.outgoing.batching import Batching
from linkspan.testing.clock import fake_runtime
from tests.unit.test_batch_format import TOPIC, outgoing

if TYPE_CHECKING:
    from linkspan.ports import Outgoing


class Relay:
    """An outlet whose broker answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[Outgoing, asyncio.Future[None]]] = []
        self.deleted: list[str] = []
        self.doubts = 0

    def send(self, message: Outgoing) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((message, future))
        return future

    def stored(self, messages: list[Outgoing]) -> None:
        self.deleted += [message.id for message in messages]

    def doubted(self, error: BaseException | None) -> None:
        self.doubts += 1

    def due(self) -> None:
        """Nothing: the test sends."""

    def ids(self, number: int) -> list[str]:
        message = self.sent[number][0]
        return [read(single.headers).id for single in singles(message.data)] if message.name == "batch" else [message.id]


def of_lane(number: int, lane: int) -> Outgoing:
    made = outgoing(number, key=f"key-{lane}")
    made.lane = lane
    return made


async def ended(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    await asyncio.sleep(0)


async def test_lanes_that_are_gone_are_forgotten_and_the_others_are_sent() -> None:
    relay, runtime = Relay(), fake_runtime()[0]
    batching = Batching(relay, TOPIC, Batches(), runtime)
    for number in range(100):
        batching.add(of_lane(number, number % 2))
    batching.send()
    await ended(relay.sent[0][1], Error(Code.UNAVAILABLE, "Away."))
    batching.add(of_lane(100, 1))

    dropped = batching.drop({1})
    assert sorted(message.id for message in dropped) == sorted(f"id-{number}" for number in (*range(1, 100, 2), 100))
    batching.send()
    await ended(relay.sent[1][1])

    assert relay.ids(1) == [f"id-{number}" for number in range(0, 100, 2)]
    assert relay.deleted == relay.ids(1)
    assert (len(relay.sent), relay.doubts) == (2, 1)


async def test_rows_that_the_broker_has_are_deleted_when_the_rest_goes_to_another() -> None:
    relay, runtime = Relay(), fake_runtime()[0]
    batching = Batching(relay, TOPIC, Batches(), runtime)
    for number in range(100):
        batching.add(of_lane(number, number % 2))
    batching.send()
    await ended(relay.sent[0][1])
    assert relay.deleted == []

    batching.drop({1})
    assert relay.deleted == relay.ids(0) == [f"id-{number}" for number in range(0, 100, 2)]
