"""Where a group stands in its partitions, asked with patience: a coordinator that has just moved says so instead of answering."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from linkspan.brokers.kafka_errors import code_of

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

    from linkspan.ports import Clock

__all__ = ["places_of"]

ASK = 10.0
"""Seconds for an answer, all tries together."""
_AGAIN = 0.1
_MOVED = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._WAIT_COORD,  # noqa: SLF001 - librdkafka's own codes begin so
    }
)


def places_of(consumer: Any, wanted: list[TopicPartition], clock: Clock) -> list[TopicPartition]:
    """Return the committed offsets, below 0 where there is none; blocks, so call it on a thread. Raises KafkaException."""
    deadline = clock.monotonic() + ASK
    while True:
        try:
            return _asked(consumer, wanted, max(1.0, deadline - clock.monotonic()))
        except KafkaException as error:
            if code_of(error) not in _MOVED or clock.monotonic() > deadline:
                raise
            threading.Event().wait(_AGAIN)


def _asked(consumer: Any, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
    places: list[TopicPartition] = consumer.committed(wanted, timeout=timeout)
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places
