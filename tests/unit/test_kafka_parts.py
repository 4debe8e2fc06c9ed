"""The parts of the Kafka adapter that need no broker: partitions, settled prefixes, what errors and refusals mean."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from linkspan.brokers.kafka import KafkaBroker
from linkspan.brokers.kafka_admin import Admin
from linkspan.brokers.kafka_attest import TopicFacts, judge
from linkspan.brokers.kafka_errors import meaning
from linkspan.brokers.kafka_lane import NOWHERE, Intake, Lane
from linkspan.brokers.kafka_options import KafkaOptions
from linkspan.brokers.kafka_places import places_of
from linkspan.brokers.kafka_sender import Sender
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.testing.clock import fake_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

URL = "kafka://127.0.0.1:1"


def test_a_message_goes_to_the_partition_of_its_lane_whatever_it_holds() -> None:
    broker = KafkaBroker(URL, runtime=fake_runtime()[0])
    sizes = (0, 1, 100)

    records = [broker._record(Outgoing("a.events", "X", 37, "1", "k", b"ce-id: 1\r\n", b"x" * size), (64, 10_000)) for size in sizes]

    assert [(record[0], record[1], record[2]) for record in records] == [("a.events", 37, "k")] * 3


def test_what_is_committed_is_settled_without_a_gap() -> None:
    lane = Lane(0, Intake(lambda _: None, 10))
    for offset in (5, 6, 8, 9):
        lane.take(offset)

    floors = [lane.floor]
    for offset in (6, 9, 5, 8):
        lane.settle(offset)
        floors.append(lane.floor)

    assert floors == [NOWHERE, NOWHERE, NOWHERE, 7, 10]
    assert (lane.in_hand, lane.ahead) == (0, 0)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Code.NOT_FOUND),
        (KafkaError.MSG_SIZE_TOO_LARGE, Code.INVALID_ARGUMENT),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Code.PERMISSION_DENIED),
        (KafkaError.NOT_ENOUGH_REPLICAS, Code.UNAVAILABLE),
        (KafkaError._TRANSPORT, Code.UNAVAILABLE),
    ],
)
def test_an_error_says_whether_another_try_helps(number: int, code: Code) -> None:
    found = meaning(KafkaException(KafkaError(number)), "Topic 'a'")

    assert isinstance(found, Error)
    assert found.code is code


def test_a_refused_login_is_a_mistake_of_the_setup() -> None:
    assert isinstance(meaning(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED), "Topic 'a'"), SetupError)


async def test_a_record_that_was_not_stored_is_not_confirmed() -> None:
    sender = Sender({}, fake_runtime()[0], 5.0)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    sender._pending = {token: (future, "a", token == 3) for token, future in enumerate(futures, 1)}

    sender.on_stored([(1, None), (2, KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)), (3, KafkaError(KafkaError._TIMED_OUT))])

    assert futures[0].result() is None
    for future in futures[1:]:
        with pytest.raises(Error) as caught:
            future.result()
        assert caught.value.code is Code.UNAVAILABLE


def test_a_topic_that_we_declare_may_lose_nothing() -> None:
    admin = Admin(KafkaOptions(f"{URL}?replicas=3"), fake_runtime()[0].clock)

    found = judge([TopicFacts("a", admin.wanted(), 3, 2)], {}, {"eligible.leader.replicas.version": 1})

    assert (found.level, found.reasons) == ("power", ())


class Moved:
    """A consumer of librdkafka's whose coordinator has moved: it answers after some refusals."""

    def __init__(self, refusals: Sequence[int]) -> None:
        self.refusals = list(refusals)

    def committed(self, wanted: list[TopicPartition], timeout: float) -> list[Any]:
        del timeout
        if self.refusals:
            raise KafkaException(KafkaError(self.refusals.pop(0)))
        return wanted


def test_a_coordinator_that_has_moved_is_asked_again_and_other_errors_are_told() -> None:
    clock, wanted = fake_runtime()[0].clock, [TopicPartition("a", 0, 7)]

    try:
        found = places_of(Moved([KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]), wanted, clock)
    except KafkaException as error:
        pytest.fail(f"It was not asked again after {error}.")
    assert found == wanted
    with pytest.raises(KafkaException):
        places_of(Moved([KafkaError.GROUP_AUTHORIZATION_FAILED]), wanted, clock)
