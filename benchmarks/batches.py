"""Events in batches: end to end against FastStream, and bytes on the wire against single events and JSON calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.harness import Nats, Sample, Side, Worker, end_to_end, median
from benchmarks.peers import settings as peers
from benchmarks.report import Entry, Goal

if TYPE_CHECKING:
    from benchmarks.rows import Bench

CALLERS = 256
OURS = "Linkspan, public API, Service(batches=Batches()), default middleware, trace context, inbox and recorded effect, uvloop"

BATCHES = Goal("batches with zstd, outbox to effect, every fsync on / FastStream push without durability", 2.5)
BATCHES_SYNC = Goal("batches with zstd, outbox to effect, every fsync on / FastStream push, sync_interval: always", 9.0)
BYTES = Goal("batches with zstd: bytes on the wire an event and hop / one event a message", 0.25, unit="B", most=True)
BYTES_JSON = Goal("batches with zstd: bytes on the wire an event and hop / a JSON call", 0.2, unit="B", most=True)


def batches(bench: Bench) -> list[Entry]:
    """Carry events from producer to consumer in batches and singly; count bytes at the sockets, both directions."""
    lax, strict = bench.nats(), bench.nats("always")
    theirs_to, theirs_from = bench.worker("peers.faststream_publisher"), bench.worker("peers.faststream_consumer")
    mine_to, mine_from = bench.worker("ours.producer"), bench.worker("ours.consumer")
    server, client = bench.worker("peers.json_server"), bench.worker("peers.json_client")
    port = server.ask("start")["port"]

    def peer(nats: Nats, operations: int) -> Sample:
        where = {"url": nats.url, "topic": bench.fresh("bench")}
        theirs_to.ask("declare", **where)
        theirs_from.ask("start", **where, mode="push")
        pids = {"producer": theirs_to.pid, "consumer": theirs_from.pid, "nats-server": nats.pid}
        sample = end_to_end(theirs_to, theirs_from, ("fill", {**where, "callers": CALLERS}), bench.effort.count(operations), pids)
        theirs_from.ask("stop", total=bench.effort.count(operations))
        nats.reset()
        return sample

    def ours(operations: int, *, together: bool) -> Sample:
        operations = bench.effort.count(operations)
        mine_from.ask("start", url=strict.url, directory=str(bench.scratch / bench.fresh("store")), mode="inbox")
        mine_to.ask("start", url=strict.url, directory=str(bench.scratch / bench.fresh("store")), batches=together)
        pids = {"producer": mine_to.pid, "consumer": mine_from.pid, "nats-server": strict.pid}
        before = passed(mine_to, mine_from, strict)
        sample = end_to_end(mine_to, mine_from, ("commit", {"callers": CALLERS}), operations, pids)
        events = operations + operations // 8
        sample.extra["bytes"] = (passed(mine_to, mine_from, strict) - before) / events / 2  # two hops: in and out
        mine_to.ask("stop")
        mine_from.ask("stop", total=operations, effects=events)
        strict.reset()
        return sample

    samples = bench.compare(
        [
            Side("FastStream push, no durability", lambda: peer(lax, 8_000)),
            Side("Linkspan in batches, every fsync on", lambda: ours(32_000, together=True)),
            Side("FastStream push, sync_interval: always", lambda: peer(strict, 3_000)),
            Side("Linkspan singly, every fsync on", lambda: ours(8_000, together=False)),
            Side("JSON calls", lambda: Sample.of(client.ask("call", port=port, operations=bench.effort.count(4_000), callers=64))),
        ]
    )
    mine = samples["Linkspan in batches, every fsync on"]
    settings = {"ours": f"{OURS}; SQLite synchronous=FULL on both sides; {strict.settings}", "peer": f"{peers.PUBLISHER}; {peers.CONSUMER}"}
    return [
        report.throughput(BATCHES, mine, samples["FastStream push, no durability"], settings=settings | {"peer_server": lax.settings}),
        report.throughput(
            BATCHES_SYNC, mine, samples["FastStream push, sync_interval: always"], settings=settings | {"peer_server": strict.settings}
        ),
        fewer(BYTES, mine, samples["Linkspan singly, every fsync on"], settings | {"peer": "the same without batches"}),
        fewer(BYTES_JSON, mine, samples["JSON calls"], settings | {"peer": peers.JSON}),
    ]


def passed(producer: Worker, reader: Worker, nats: Nats) -> int:
    """Add up what has passed both hops so far: messages, acknowledgements and protocol, both directions."""
    return sum(int(each.ask("wire", port=nats.port)["bytes"]) for each in (producer, reader))


def fewer(goal: Goal, ours: list[Sample], peer: list[Sample], settings: dict[str, Any]) -> Entry:
    """Compare bytes an event and hop."""
    mine, theirs = (median(sample.extra["bytes"] for sample in samples) for samples in (ours, peer))
    detail = {"rounds": len(ours), "bytes": [round(sample.extra["bytes"], 1) for sample in ours], "settings": settings}
    return Entry(goal, mine, theirs, detail=detail).judge()
