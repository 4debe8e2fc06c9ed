"""The first record of a Kafka partition goes alone: what is sent behind one that fails must not take its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from linkspan.brokers.kafka_firsts import Firsts

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.brokers.kafka_firsts import Record, Report

MOVED = KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)


def record(name: str, partition: int = 0) -> Record:
    return ("events", partition, name, b"", [])


class Wire:
    """What librdkafka was given, in order; `end` tells how one ended."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.ended: list[tuple[str, KafkaError | None]] = []
        self.full = False
        self._reports: dict[str, Report] = {}
        self.firsts = Firsts(self._produce)

    def _produce(self, record: Record, report: Report) -> None:
        if self.full:
            raise BufferError
        self.sent.append(record[2])
        self._reports[record[2]] = report

    def send(self, name: str, partition: int = 0) -> None:
        self.firsts.send(record(name, partition), self._report(name))

    def end(self, name: str, error: KafkaError | None = None) -> None:
        self._reports.pop(name)(error, None)

    def _report(self, name: str) -> Callable[[KafkaError | None, object], None]:
        return lambda error, _message: self.ended.append((name, error))


def test_records_wait_until_the_first_of_their_partition_is_stored() -> None:
    wire = Wire()
    for name in "abc":
        wire.send(name)
    assert wire.sent == ["a"]

    wire.end("a")
    assert wire.sent == ["a", "b", "c"]

    wire.send("d")
    assert wire.sent == ["a", "b", "c", "d"]
    for name in "bcd":
        wire.end(name)
    assert wire.ended == [(name, None) for name in "abcd"]


def test_other_partitions_do_not_wait() -> None:
    wire = Wire()
    wire.send("a")
    wire.send("b", partition=1)
    wire.send("c")
    assert wire.sent == ["a", "b"]


def test_where_the_first_fails_the_next_goes_alone() -> None:
    wire = Wire()
    for name in "abc":
        wire.send(name)
    wire.end("a", MOVED)
    assert wire.sent == ["a", "b"]

    wire.end("b")
    assert wire.sent == ["a", "b", "c"]
    assert wire.ended == [("a", MOVED), ("b", None)]


def test_where_all_fail_the_next_one_is_the_first_again() -> None:
    wire = Wire()
    wire.send("a")
    wire.end("a", MOVED)
    wire.send("b")
    wire.send("c")
    assert wire.sent == ["a", "b"]


def test_what_waited_and_finds_no_room_is_told() -> None:
    wire = Wire()
    wire.send("a")
    wire.send("b")
    wire.full = True
    wire.end("a")
    assert [(name, error.code() if error else None) for name, error in wire.ended] == [("a", None), ("b", KafkaError._QUEUE_FULL)]


def test_a_first_that_finds_no_room_blocks_nobody() -> None:
    wire = Wire()
    wire.full = True
    try:
        wire.send("a")
    except BufferError:
        wire.full = False
    wire.send("b")
    assert wire.sent == ["b"]


def test_after_an_hour_the_next_goes_alone_again() -> None:
    wire = Wire()
    wire.send("a")
    wire.end("a")
    wire.firsts.forget()
    wire.send("b")
    wire.send("c")
    assert wire.sent == ["a", "b"]


def test_a_producer_that_is_given_up_sends_nothing_that_waits() -> None:
    wire = Wire()
    for name in "abc":
        wire.send(name)
    wire.firsts.end()
    wire.end("a", MOVED)
    assert wire.sent == ["a"]
