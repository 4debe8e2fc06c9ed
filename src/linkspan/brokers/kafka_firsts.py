"""The first record of a partition goes alone: what follows waits until the broker has stored it.

A broker that knows nothing of a producer takes any sequence number as its first (KAFKA-15591). Where record A fails because the
partition is not there yet, has no leader or changes it, and record B, sent behind it, does not, B is stored, and A never can be.
librdkafka takes B's success for A's: it confirms a record that is lost. Once a record is stored the broker knows the producer.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from confluent_kafka import KafkaError, KafkaException

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Firsts", "Record", "Report"]

Record: TypeAlias = tuple[str, int, str, bytes, "list[tuple[str, bytes]]"]
"""Topic, partition, key, data and headers."""
Report: TypeAlias = "Callable[[KafkaError | None, object], None]"
"""What a record's end is told to, with its error."""


class Firsts:
    """Queues records by `produce`. Reports come on the producer's thread, all else on the event loop's."""

    def __init__(self, produce: Callable[[Record, Report], None]) -> None:
        self._produce = produce
        self._known: set[tuple[str, int]] = set()
        self._waiting: dict[tuple[str, int], deque[tuple[Record, Report]]] = {}
        self._lock = threading.Lock()
        self._ended = False

    def send(self, record: Record, report: Report) -> None:
        """Queue a record now, or when the first one of its partition is stored. Raises what `produce` raises."""
        place = record[:2]
        if place in self._known:
            self._produce(record, report)
            return
        with self._lock:
            if place in self._waiting:
                self._waiting[place].append((record, report))
                return
            first = place not in self._known
            if first:
                self._waiting[place] = deque()
        if not first:
            self._produce(record, report)
            return
        try:
            self._produce(record, partial(self._on_first, place, report))
        except BaseException:
            with self._lock:
                self._next(place)
            raise

    def forget(self) -> None:
        """Let the next record of each partition go alone again: a broker forgets a producer that it does not hear of for a day."""
        with self._lock:
            self._known.clear()

    def end(self) -> None:
        """Queue nothing more: whoever waits has been told."""
        with self._lock:
            self._ended = True
            for waiting in self._waiting.values():
                waiting.clear()

    def _on_first(self, place: tuple[str, int], report: Report, error: KafkaError | None, message: object) -> None:
        report(error, message)
        with self._lock:
            if error is not None:
                self._next(place)
                return
            for record, waiting in self._waiting.pop(place):
                self._queue(record, waiting, waiting)
            self._known.add(place)

    def _next(self, place: tuple[str, int]) -> None:
        """Let the next one be the first."""
        waiting = self._waiting[place]
        while waiting:
            record, report = waiting.popleft()
            if self._queue(record, report, partial(self._on_first, place, report)):
                return
        del self._waiting[place]

    def _queue(self, record: Record, report: Report, then: Report) -> bool:
        """Queue a record that has waited; what keeps it from that is reported."""
        if self._ended:
            return False
        try:
            self._produce(record, then)
        except BufferError:
            report(KafkaError(KafkaError._QUEUE_FULL), None)  # noqa: SLF001 - librdkafka's own codes begin so
        except KafkaException as error:
            report(error.args[0], None)
        else:
            return True
        return False
