"""Consuming from Apache Kafka: ours with inbox and a recorded effect, FastStream's (confluent) with neither."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

from confluent_kafka import Consumer as KafkaConsumer, TopicPartition

from benchmarks import report
from benchmarks.harness import BenchError, Sample, Side, median
from benchmarks.peers import settings as peers
from benchmarks.report import Entry, Goal
from linkspan.brokers.kafka_admin import group_of
from linkspan.envelope import LANES
from tests.kafka.servers import LIBS, KafkaCluster

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from benchmarks.rows import Bench

CALLERS = 256
TOPIC = "bench.orders.v1.events"
OURS = "Linkspan, public API, typed handler, default middleware, deadline and trace context, inbox and recorded effect in SQLite, uvloop"
SERVER = f"Apache Kafka 4 (KRaft), one broker on loopback, 256 MB heap, its default flush (none); {LANES} partitions"

KAFKA = Goal("Kafka consumer with inbox and a recorded effect row in SQLite / FastStream (confluent) without", 2.0)


def kafka(bench: Bench) -> list[Entry]:
    """Fill a topic, then let one side drain it."""
    with _running(bench.scratch / "kafka") as cluster:
        process = cluster.servers[0].process
        assert process is not None
        pids = {"kafka": process.pid}
        theirs, mine, filler = bench.worker("peers.faststream_kafka"), bench.worker("ours.consumer"), bench.worker("ours.publisher")
        url, addresses = cluster.url, cluster.addresses
        mine.ask("declare", url=url, directory=str(bench.scratch / bench.fresh("store")), mode="inbox")

        def peer(mode: str, operations: int) -> Sample:
            topic = bench.fresh("bench")
            skip, measured, total = _counts(bench, operations)
            theirs.ask("fill", addresses=addresses, topic=topic, partitions=LANES, operations=total, callers=CALLERS)
            theirs.ask("expect", skip=skip, measured=measured, total=total, pids=pids)
            theirs.ask("start", addresses=addresses, topic=topic, mode=mode)
            answer = theirs.ask("result", timeout=60)
            theirs.ask("stop", total=total)
            return Sample.of(answer)

        def ours() -> Sample:
            skip, measured, total = _counts(bench, 32_000)
            filler.ask("fill", url=url, operations=total, callers=CALLERS)
            mine.ask("expect", skip=skip, measured=measured, total=total, pids=pids)
            mine.ask("start", url=url, directory=str(bench.scratch / bench.fresh("store")), mode="inbox")
            answer = mine.ask("result", timeout=60)
            mine.ask("stop", total=total)
            if left := uncommitted(addresses):
                message = f"'{mine.name}' left {left} of {total} messages uncommitted"
                raise BenchError(message)
            return Sample.of(answer)

        samples = bench.compare(
            [
                Side("FastStream, commits every 5 s", lambda: peer("auto", 8_000)),
                Side("Linkspan, inbox and recorded effect", ours),
                Side("FastStream, commits after each message", lambda: peer("each", 1_600)),
            ]
        )
    best = max((samples[name] for name in samples if name.startswith("FastStream")), key=lambda found: median(s.rate for s in found))
    settings = {"ours": OURS, "peer": peers.KAFKA, "server": SERVER}
    return [report.throughput(KAFKA, samples["Linkspan, inbox and recorded effect"], best, limit="consumer", settings=settings)]


def _counts(bench: Bench, operations: int) -> tuple[int, int, int]:
    """Say how many messages come before those that are measured, are measured, and are in the topic."""
    measured = bench.effort.count(operations)
    return measured // 8, measured, measured + measured // 4


@contextlib.contextmanager
def _running(directory: Path) -> Generator[KafkaCluster]:
    """Start a broker as the tests do. Raises `BenchError` where it is not there."""
    if shutil.which("java") is None or not LIBS.is_dir():
        message = "Apache Kafka is not there: run scripts/get_kafka.sh"
        raise BenchError(message)
    cluster = KafkaCluster(directory)
    try:
        asyncio.run(cluster.start())
        yield cluster
    finally:
        cluster.kill()


def uncommitted(addresses: str) -> int:
    """Count the messages behind what our group has committed."""
    looking = KafkaConsumer({"bootstrap.servers": addresses, "group.id": group_of(TOPIC, "mail"), "enable.auto.commit": False})
    try:
        left = 0
        for place in looking.committed([TopicPartition(TOPIC, number) for number in range(LANES)], timeout=20.0):
            first, last = looking.get_watermark_offsets(place, timeout=20.0)
            left += last - max(place.offset, first)
        return left
    finally:
        looking.close()
