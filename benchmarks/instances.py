"""One and four instances of a service that share a PostgreSQL store and a NATS server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg

from benchmarks import report
from benchmarks.harness import BenchError, Meter, Sample, Side, median
from benchmarks.postgres_server import SETTINGS, postgres
from benchmarks.report import Entry, Goal

if TYPE_CHECKING:
    from benchmarks.rows import Bench

MOST = 4
WAIT = 0.005
"""Seconds that the handler waits."""
CONCURRENCY = 1
"""Handlers of one instance that wait at the same time: so few that waiting is the bound and not the CPU."""
PATIENCE = 60.0
COUNT = "select count(*) from effect"
OURS = (
    f"Linkspan, public API, typed handler that waits {WAIT * 1e3:g} ms, Limits(concurrency={CONCURRENCY}): waiting is the bound, at most "
    f"{CONCURRENCY / WAIT:g} messages a second and instance; lanes, inbox and recorded effect in PostgreSQL, a process per instance, uvloop"
)

INSTANCES = Goal(f"{MOST} consumer instances on a handler that waits {WAIT * 1e3:g} ms / one instance", 3.5)


def instances(bench: Bench) -> list[Entry]:
    """Fill a topic once all instances have their lanes; the database says when each effect came."""
    nats = bench.nats()
    filler = bench.worker("ours.publisher")
    workers = [bench.worker("ours.instance") for _ in range(MOST)]
    with postgres() as server:

        def run(count: int, operations: int) -> Sample:
            measured = bench.effort.count(operations)
            total = measured + measured // 4
            store = server.url(schema=bench.fresh("round"))
            readers = workers[:count]
            directory = str(bench.scratch / bench.fresh("store"))
            for number, each in enumerate(readers):
                each.tell("start", url=nats.url, store=store, directory=f"{directory}-{number}", wait=WAIT, concurrency=CONCURRENCY)
            for each in readers:
                each.hear()
            asyncio.run(_spread(store, count))
            assert server.process is not None
            pids = {f"instance {number}": each.pid for number, each in enumerate(readers, 1)}
            meter = Meter(pids | {"postgres": server.process.pid, "nats-server": nats.pid})
            meter.start()
            filler.ask("fill", url=nats.url, operations=total, callers=64)
            seconds = asyncio.run(_drained(store, total, measured // 8, measured))
            cpu = meter.stop(total)["cpu"]
            for each in readers:
                each.ask("stop")
            nats.reset()
            return Sample(measured / seconds, cpu)

        one, four = "one instance", f"{MOST} instances"
        samples = bench.compare([Side(one, lambda: run(1, 480)), Side(four, lambda: run(MOST, 480 * MOST))])
    ratios = [a.rate / b.rate for a, b in zip(samples[four], samples[one], strict=False)]
    detail = report.cpu_detail(samples[four], samples[one]) | {"ratios": [round(ratio, 3) for ratio in ratios]}
    detail["settings"] = {"ours": OURS, "peer": "the same, one instance", "store": SETTINGS, "server": nats.settings}
    return [Entry(INSTANCES, median(s.rate for s in samples[four]), median(s.rate for s in samples[one]), detail=detail).judge()]


async def _spread(store: str, count: int) -> None:
    """Wait until all lanes belong to that many instances in equal shares. Raises `BenchError`."""
    connection = await _connect(store)
    until = time.monotonic() + PATIENCE
    try:
        while True:
            rows = await connection.fetch("select count(*) from linkspan_lane where service = 'mail' and owner is not null group by owner")
            if sorted(row[0] for row in rows) == [64 // count] * count:
                return
            if time.monotonic() > until:
                message = f"the lanes of {count} instances were not spread within {PATIENCE:g} s: {[row[0] for row in rows]}"
                raise BenchError(message)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def _drained(store: str, total: int, skip: int, measured: int) -> float:
    """Wait for all effects; return the seconds from the effect number `skip` to that number plus `measured`. Raises `BenchError`."""
    connection = await _connect(store)
    until = time.monotonic() + PATIENCE
    try:
        while (count := await connection.fetchval(COUNT)) < total and time.monotonic() < until:  # noqa: ASYNC110 - PostgreSQL says nothing
            await asyncio.sleep(0.1)
        unlike = await connection.fetchval("select count(distinct order_id) from effect")
        if not count == unlike == total:
            message = f"{count} effects of {unlike} events, expected {total}"
            raise BenchError(message)
        moments = "select extract(epoch from at)::float8 from effect order by at offset $1 limit 1"
        begin, end = [await connection.fetchval(moments, place) for place in (skip, skip + measured)]
        return float(end - begin)
    finally:
        await connection.close()


async def _connect(store: str) -> asyncpg.Connection[asyncpg.Record]:
    url, _, schema = store.rpartition("?schema=")
    return await asyncpg.connect(url, server_settings={"search_path": schema})
