"""The rows of the table: which processes stand on each side, what one round is, what is compared."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks import report
from benchmarks.backlog import FLAT, backlog
from benchmarks.batches import BATCHES, BATCHES_SYNC, BYTES, BYTES_JSON, batches
from benchmarks.harness import CALLERS_PUBLISH, Effort, Meter, Nats, Sample, Side, Worker, drained, end_to_end, interleave, median
from benchmarks.instances import INSTANCES, instances
from benchmarks.kafka import KAFKA, kafka
from benchmarks.peers import settings as peers
from benchmarks.postgres import ALONE, CONSUME, CONSUME_FETCHED, CONSUME_GROUPS, SINGLE, WRITE, consuming, writing
from benchmarks.report import Entry, Goal
from benchmarks.startup import import_seconds, ready_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALLERS_QUERY = 64
OURS = "Linkspan, public API, typed handlers, default middleware, deadline and trace context, uvloop"

CONSUMER = Goal("durable consumer, at-least-once, ack each", 5.0)
CONSUMER_INBOX = Goal("durable consumer with inbox and a recorded effect row in SQLite", 3.0)
CONSUMER_READS = Goal("durable consumer with inbox, handler reads before it writes", None)
PUBLISH = Goal("publish with broker ack, 256 in flight", 3.0)
OUTBOX = Goal("outbox to effect, every fsync on / FastStream without durability", 1.5)
OUTBOX_SYNC = Goal("outbox to effect, every fsync on / FastStream, sync_interval: always", 5.0)
LATENCY_P50 = Goal("commit to effect at 100 events a second, p50", 2.0, unit="ms", most=True)
LATENCY_P99 = Goal("commit to effect at 100 events a second, p99", 10.0, unit="ms", most=True)
QUERY = Goal("unary query, 64 callers", 2.0)
QUERY_CPU = Goal("unary query, 64 callers: CPU of the server", 0.6, unit="us/op", most=True)
EXTRA_SERVER = Goal("middleware, deadline and trace context over the bare call: server", 15.0, unit="us/op", most=True)
EXTRA_CLIENT = Goal("middleware, deadline and trace context over the bare call: client", 15.0, unit="us/op", most=True)
IMPORT = Goal("import of linkspan", 0.4, unit="s", most=True)
READY = Goal("linkspan run, ready to answer", 2.0, unit="s", most=True)


class Bench:
    """What a row needs: an effort, a scratch directory, servers and workers that end with it."""

    def __init__(self, effort: Effort, show: Callable[[str], None]) -> None:
        self.effort = effort
        self.show = show
        self._closing = contextlib.ExitStack()
        self.scratch = Path(tempfile.mkdtemp(prefix="linkspan-bench-"))
        self._closing.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        self._serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def nats(self, sync: str = "default") -> Nats:
        """Start a nats-server."""
        server = Nats(self.scratch, sync=sync)
        self._closing.callback(server.stop)
        return server

    def worker(self, module: str) -> Worker:
        """Start one side's process."""
        child = Worker(module, self.scratch)
        self._closing.callback(child.stop)
        return child

    def fresh(self, prefix: str) -> str:
        """Make a name that no round used before."""
        self._serial += 1
        return f"{prefix}{self._serial}"

    def compare(self, sides: Sequence[Side]) -> dict[str, list[Sample]]:
        """Run the sides interleaved and show each figure as it comes."""

        def shown(side: Side) -> Side:
            def run() -> Sample:
                sample = side.run()
                cpu = ", ".join(f"{role} {value:.1f}" for role, value in sample.cpu.items())
                more = "  ".join(f"{name} {value:.4g}" for name, value in sample.extra.items())
                self.show(f"          {sample.rate:>10,.0f}/s   us/op: {cpu}  {more}")
                return sample

            return Side(side.name, run)

        return interleave([shown(side) for side in sides], self.effort, self.show)


def better(*candidates: list[Sample]) -> list[Sample]:
    """Pick the side with the higher median."""
    return max(candidates, key=lambda samples: median(sample.rate for sample in samples))


# --- durable consumer -------------------------------------------------------------------------


def consumer(bench: Bench) -> list[Entry]:
    """Fill a stream, then let one side drain it; three ways of ours against two of FastStream's."""
    nats = bench.nats()
    theirs, theirs_fill = bench.worker("peers.faststream_consumer"), bench.worker("peers.faststream_publisher")
    mine, mine_fill = bench.worker("ours.consumer"), bench.worker("ours.publisher")

    def peer(mode: str) -> Sample:
        topic = bench.fresh("bench")
        theirs_fill.ask("declare", url=nats.url, topic=topic)
        where = {"url": nats.url, "topic": topic}
        return drained(nats, theirs, theirs_fill, bench.effort.count(8_000), where, {**where, "mode": mode})

    def ours(mode: str, measured: int) -> Sample:
        directory = str(bench.scratch / bench.fresh("store"))
        mine.ask("declare", url=nats.url, directory=directory, mode=mode)
        how = {"url": nats.url, "directory": directory, "mode": mode}
        return drained(nats, mine, mine_fill, bench.effort.count(measured), {"url": nats.url}, how)

    samples = bench.compare(
        [
            Side("FastStream push", lambda: peer("push")),
            Side("Linkspan, ack each", lambda: ours("ack", 40_000)),
            Side("FastStream pull", lambda: peer("pull")),
            Side("Linkspan, inbox and recorded effect", lambda: ours("inbox", 24_000)),
            Side("Linkspan, inbox and a read before the write", lambda: ours("reads", 2_000)),
        ]
    )
    best = better(samples["FastStream push"], samples["FastStream pull"])
    detail = {"settings": {"ours": OURS, "peer": peers.CONSUMER, "server": nats.settings}}
    return [
        report.throughput(CONSUMER, samples["Linkspan, ack each"], best, limit="consumer", **detail),
        report.throughput(CONSUMER_INBOX, samples["Linkspan, inbox and recorded effect"], best, limit="consumer", **detail),
        report.throughput(CONSUMER_READS, samples["Linkspan, inbox and a read before the write"], best, limit="consumer", **detail),
    ]


# --- publish ----------------------------------------------------------------------------------


def publish(bench: Bench) -> list[Entry]:
    """Publish typed events, 256 in flight, each awaiting the broker's acknowledgement."""
    nats = bench.nats()
    theirs, mine, declarer = bench.worker("peers.faststream_publisher"), bench.worker("ours.publisher"), bench.worker("ours.consumer")
    pids = {"nats-server": nats.pid}

    def peer() -> Sample:
        topic = bench.fresh("bench")
        theirs.ask("declare", url=nats.url, topic=topic)
        operations = bench.effort.count(12_000)
        answer = theirs.ask("publish", url=nats.url, topic=topic, operations=operations, callers=CALLERS_PUBLISH, pids=pids)
        nats.reset()
        return Sample.of(answer)

    def ours() -> Sample:
        declarer.ask("declare", url=nats.url, directory=str(bench.scratch / bench.fresh("store")), mode="ack")
        answer = mine.ask("publish", url=nats.url, operations=bench.effort.count(48_000), callers=CALLERS_PUBLISH, pids=pids)
        nats.reset()
        return Sample.of(answer)

    samples = bench.compare([Side("FastStream", peer), Side("Linkspan", ours)])
    settings = {"ours": OURS, "peer": peers.PUBLISHER, "server": nats.settings}
    return [report.throughput(PUBLISH, samples["Linkspan"], samples["FastStream"], limit="publisher", settings=settings)]


# --- outbox to effect -------------------------------------------------------------------------


def outbox(bench: Bench) -> list[Entry]:
    """Carry events from producer to consumer, end to end: ours with stores and every fsync, FastStream's with neither."""
    lax, strict = bench.nats(), bench.nats("always")
    theirs_to, theirs_from = bench.worker("peers.faststream_publisher"), bench.worker("peers.faststream_consumer")
    mine_to, mine_from = bench.worker("ours.producer"), bench.worker("ours.consumer")

    def peer(nats: Nats, operations: int) -> Sample:
        where = {"url": nats.url, "topic": bench.fresh("bench")}
        theirs_to.ask("declare", **where)
        theirs_from.ask("start", **where, mode="push")
        pids = {"producer": theirs_to.pid, "consumer": theirs_from.pid, "nats-server": nats.pid}
        work = {**where, "callers": CALLERS_PUBLISH}
        sample = end_to_end(theirs_to, theirs_from, ("fill", work), bench.effort.count(operations), pids)
        theirs_from.ask("stop", total=bench.effort.count(operations))
        nats.reset()
        return sample

    def ours() -> Sample:
        mine_from.ask("start", url=strict.url, directory=str(bench.scratch / bench.fresh("store")), mode="inbox")
        mine_to.ask("start", url=strict.url, directory=str(bench.scratch / bench.fresh("store")))
        pids = {"producer": mine_to.pid, "consumer": mine_from.pid, "nats-server": strict.pid}
        sample = end_to_end(mine_to, mine_from, ("commit", {"callers": CALLERS_PUBLISH}), bench.effort.count(16_000), pids)
        mine_to.ask("stop")
        operations = bench.effort.count(16_000)
        mine_from.ask("stop", total=operations, effects=operations + operations // 8)  # the warm-up has left its effects too
        strict.reset()
        return sample

    samples = bench.compare(
        [
            Side("FastStream push, no durability", lambda: peer(lax, 8_000)),
            Side("Linkspan, every fsync on", ours),
            Side("FastStream push, sync_interval: always", lambda: peer(strict, 3_000)),
        ]
    )
    mine = samples["Linkspan, every fsync on"]
    settings = {"ours": f"{OURS}; SQLite synchronous=FULL on both sides; {strict.settings}", "peer": f"{peers.PUBLISHER}; {peers.CONSUMER}"}
    return [
        report.throughput(OUTBOX, mine, samples["FastStream push, no durability"], settings=settings | {"peer_server": lax.settings}),
        report.throughput(
            OUTBOX_SYNC, mine, samples["FastStream push, sync_interval: always"], settings=settings | {"peer_server": strict.settings}
        ),
    ]


# --- commit to effect -------------------------------------------------------------------------


def latency(bench: Bench) -> list[Entry]:
    """Commit at 100 a second and see when the effect is committed on the other side."""
    nats = bench.nats("always")
    mine_to, mine_from = bench.worker("ours.producer"), bench.worker("ours.consumer")
    mine_from.ask("start", url=nats.url, directory=str(bench.scratch / "from"), mode="moments")
    mine_to.ask("start", url=nats.url, directory=str(bench.scratch / "to"), timed=True)
    pids = {"producer": mine_to.pid, "consumer": mine_from.pid, "nats-server": nats.pid}

    def ours() -> Sample:
        operations = bench.effort.count(500)
        mine_from.ask("expect", skip=0, measured=operations, total=operations, pids={})
        meter = Meter(pids)
        meter.start()
        committed = mine_to.ask("pace", operations=operations, per_second=100.0)["moments"]
        mine_from.ask("result")
        answer = meter.stop(operations)
        effects = mine_from.ask("moments", total=operations)["moments"]
        waits = sorted((effects[key] - moment) / 1e6 for key, moment in committed.items())
        at = {"p50_ms": waits[len(waits) // 2], "p99_ms": waits[int(len(waits) * 0.99)], "max_ms": waits[-1]}
        return Sample.of(answer | {"extra": at})

    samples = bench.compare([Side("Linkspan, every fsync on", ours)])["Linkspan, every fsync on"]
    settings = {"ours": f"{OURS}; SQLite synchronous=FULL on both sides; {nats.settings}"}
    detail = report.cpu_detail(samples) | {"settings": settings, "max_ms": [round(s.extra["max_ms"], 2) for s in samples]}
    return [
        Entry(LATENCY_P50, median(s.extra["p50_ms"] for s in samples), detail=dict(detail)).judge(),
        Entry(LATENCY_P99, median(s.extra["p99_ms"] for s in samples), detail=dict(detail)).judge(),
    ]


# --- unary query ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A server and a client of the unary query."""

    server: Worker
    port: int
    client: Worker

    def round(self, operations: int) -> Sample:
        """Measure one round with 64 callers."""
        pids = {"server": self.server.pid}
        return Sample.of(self.client.ask("call", port=self.port, operations=operations, callers=CALLERS_QUERY, pids=pids))


def query(bench: Bench) -> list[Entry]:
    """Ask one small question, 64 callers: our server and client against grpcio.aio's."""
    theirs, mine = bench.worker("peers.grpc_server"), bench.worker("ours.query_server")
    peer = Pair(theirs, theirs.ask("start")["port"], bench.worker("peers.grpc_client"))
    ours = Pair(mine, mine.ask("start", directory=str(bench.scratch / "query"))["port"], bench.worker("ours.query_client"))
    count = bench.effort.count
    samples = bench.compare([Side("grpcio.aio", lambda: peer.round(count(6_000))), Side("Linkspan", lambda: ours.round(count(20_000)))])
    settings = {"ours": OURS, "peer": peers.GRPC}
    mine_cpu, their_cpu = (median(s.cpu["server"] for s in samples[name]) for name in ("Linkspan", "grpcio.aio"))
    return [
        report.throughput(QUERY, samples["Linkspan"], samples["grpcio.aio"], settings=settings),
        Entry(
            QUERY_CPU, mine_cpu, their_cpu, detail=report.cpu_detail(samples["Linkspan"], samples["grpcio.aio"]) | {"settings": settings}
        ).judge(),
    ]


def overhead(bench: Bench) -> list[Entry]:
    """Change one end at a time from the bare transport to the whole and see what that end then costs."""
    mine, bare = bench.worker("ours.query_server"), bench.worker("ours.bare_server")
    my_port, bare_port = mine.ask("start", directory=str(bench.scratch / "query"))["port"], bare.ask("start")["port"]
    my_client, bare_client = bench.worker("ours.query_client"), bench.worker("ours.bare_client")
    both, server_bare, client_bare = Pair(mine, my_port, my_client), Pair(bare, bare_port, my_client), Pair(mine, my_port, bare_client)
    # A difference of two noisy figures: twice the rounds, half as long.
    bench.effort = replace(bench.effort, rounds=2 * bench.effort.rounds)
    operations = bench.effort.count(5_000)
    samples = bench.compare(
        [
            Side("Linkspan both ends", lambda: both.round(operations)),
            Side("bare server", lambda: server_bare.round(operations)),
            Side("bare client", lambda: client_bare.round(operations)),
        ]
    )
    full = samples["Linkspan both ends"]
    return [
        _added(EXTRA_SERVER, "server", full, samples["bare server"]),
        _added(EXTRA_CLIENT, "client", full, samples["bare client"]),
    ]


def _added(goal: Goal, role: str, full: list[Sample], bare: list[Sample]) -> Entry:
    added = [a.cpu[role] - b.cpu[role] for a, b in zip(full, bare, strict=True)]
    detail: dict[str, Any] = {
        "rounds": len(added),
        "differences": [round(value, 1) for value in added],
        f"{role}_us": round(median(s.cpu[role] for s in full), 2),
        f"bare_{role}_us": round(median(s.cpu[role] for s in bare), 2),
        "settings": {"ours": OURS, "bare": peers.BARE},
    }
    if goal.target is not None and min(added) < goal.target < max(added):
        detail["note"] = (
            f"the bar lies inside the noise (differences of the rounds {min(added):.1f} to {max(added):.1f}): their median decides"
        )
    return Entry(goal, median(added), detail=detail).judge()


# --- start-up ---------------------------------------------------------------------------------


def startup(bench: Bench) -> list[Entry]:
    """Import in fresh processes, and start a small app from the command line until it answers."""
    times = max(3, bench.effort.rounds)
    imports = [import_seconds() for _ in range(times + 1)][1:]  # the first one may compile
    bench.show(f"import of linkspan: {', '.join(f'{value:.3f}' for value in imports)} s")
    readies = []
    for number in range(times):
        readies.append(ready_seconds(bench.scratch, number))
        bench.show(f"linkspan run ready: {readies[-1]:.3f} s")
    return [
        Entry(IMPORT, median(imports), detail={"rounds": len(imports), "values": [round(value, 4) for value in imports]}).judge(),
        Entry(READY, median(readies), detail={"rounds": len(readies), "values": [round(value, 4) for value in readies]}).judge(),
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """A group of entries that are measured together, how many seconds their rounds may take, and how many those are."""

    run: Callable[[Bench], list[Entry]]
    goals: tuple[Goal, ...]
    budget: float
    rounds: int = 5
    quick: bool = True
    """Whether a quick run measures it too."""


ROWS = {
    "consumer": Row(consumer, (CONSUMER, CONSUMER_INBOX, CONSUMER_READS), 110),
    "publish": Row(publish, (PUBLISH,), 40),
    "outbox": Row(outbox, (OUTBOX, OUTBOX_SYNC), 100, rounds=25),
    "batches": Row(batches, (BATCHES, BATCHES_SYNC, BYTES, BYTES_JSON), 100),
    "kafka": Row(kafka, (KAFKA,), 40, quick=False),
    "instances": Row(instances, (INSTANCES,), 25, rounds=3, quick=False),
    "postgres": Row(writing, (WRITE, SINGLE, ALONE), 30, rounds=9, quick=False),
    "postgres-consumer": Row(consuming, (CONSUME, CONSUME_GROUPS, CONSUME_FETCHED), 40, quick=False),
    "backlog": Row(backlog, tuple(FLAT.values()), 22, rounds=3, quick=False),
    "latency": Row(latency, (LATENCY_P50, LATENCY_P99), 45),
    "query": Row(query, (QUERY, QUERY_CPU), 45),
    "overhead": Row(overhead, (EXTRA_SERVER, EXTRA_CLIENT), 45),
    "startup": Row(startup, (IMPORT, READY), 40),
}
