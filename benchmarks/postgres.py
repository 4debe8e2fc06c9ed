"""PostgreSQL: a business row with its outbox row, an effect with its inbox row, and both written by hand on asyncpg and nats-py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks import report
from benchmarks.harness import CALLERS_PUBLISH, BenchError, Nats, Sample, Side, Worker, drained, median
from benchmarks.peers import settings as peers
from benchmarks.postgres_server import SETTINGS, postgres
from benchmarks.report import Entry, Goal

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.rows import Bench
    from tests.integration.postgres_runner import PostgresRunner

CONNECTIONS = 16
CALLERS = 16
HELD = 1_200
"""Rows that the relay has in hand while only the writing is measured: more than a page."""
OURS = "Linkspan, public API, default middleware and trace context, store postgresql:// with 16 sessions, uvloop"

WRITE = Goal("PostgreSQL, business row + outbox row, interactive: CPU / by hand on asyncpg", 1.15, unit="us/op", most=True)
SINGLE = Goal("PostgreSQL, business row + outbox row, recorded: single statements / by hand", 1.8)
ALONE = Goal("PostgreSQL, the same with one caller: a statement each / by hand", None)
CONSUME = Goal("PostgreSQL, consume with inbox and recorded effect / by hand on asyncpg + nats-py", 1.5)
CONSUME_GROUPS = Goal("PostgreSQL, consume: recorded writes in groups / one transaction a message", 5.0)
CONSUME_FETCHED = Goal("PostgreSQL, consume with inbox and recorded effect / by hand, a transaction a fetch", None)


def writing(bench: Bench) -> list[Entry]:
    """Write orders with their events, 16 in flight and one at a time. Nothing is published meanwhile: only the writing is compared."""
    with postgres() as server, contextlib.ExitStack() as stack:
        nats = bench.nats()
        theirs, mine = bench.worker("peers.asyncpg_writer"), bench.worker("ours.producer")
        theirs.ask("start", dsn=server.url(), schema="peer", connections=CONNECTIONS)
        store = server.url(schema="ours", sessions=str(CONNECTIONS))
        mine.ask("start", url=nats.url, directory=str(bench.scratch / "store"), store=store)
        stack.enter_context(standing_still(nats))
        mine.ask("write_alone")
        mine.ask("commit", operations=HELD, callers=CALLERS_PUBLISH)
        written = {theirs: 0, mine: HELD}

        def side(worker: Worker, operations: int, callers: int, **how: bool) -> Sample:
            operations = bench.effort.count(operations)
            written[worker] += operations + operations // 8  # the warm-up's too
            pids = postmaster(server)
            return Sample.of(worker.ask("write", operations=operations, callers=callers, pids=pids, **how))

        samples = bench.compare(
            [
                Side("by hand", lambda: side(theirs, 2_000, CALLERS)),
                Side("Linkspan, interactive", lambda: side(mine, 2_000, CALLERS, interactive=True)),
                Side("Linkspan, recorded", lambda: side(mine, 8_000, CALLERS, interactive=False)),
                Side("by hand, one caller", lambda: side(theirs, 800, 1)),
                Side("Linkspan, recorded, one caller", lambda: side(mine, 800, 1, interactive=False)),
            ]
        )
        theirs.ask("stop", total=written[theirs])
        check_written(server, written[mine])
        mine.stop()  # with its outbox full: nothing is to be published
    settings = {"ours": OURS, "peer": peers.ASYNCPG_WRITER, "server": SETTINGS}
    peer, alone = samples["by hand"], samples["by hand, one caller"]
    return [
        more_cpu(WRITE, samples["Linkspan, interactive"], peer, settings),
        report.throughput(SINGLE, samples["Linkspan, recorded"], peer, settings=settings),
        report.throughput(ALONE, samples["Linkspan, recorded, one caller"], alone, settings=settings),
    ]


@contextlib.contextmanager
def standing_still(nats: Nats) -> Generator[None]:
    """Stop a server's process, so that a relay waits for its answers."""
    os.kill(nats.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(nats.pid, signal.SIGCONT)


def check_written(server: PostgresRunner, total: int) -> None:
    """Raise unless each order and each event is stored once, the events of a key numbered without a gap in the order of their positions."""
    numbered = "select sequence - row_number() over (partition by key order by position) as gap from ours.linkspan_outbox"
    question = f"select (select count(*) from ours.orders), count(*), count(*) filter (where gap <> 0) from ({numbered}) as numbered"
    found = asyncio.run(answer(server, question))
    if found != (total, total, 0):
        message = f"{found[0]} orders and {found[1]} outbox rows, {found[2]} of them misnumbered, for {total} operations"
        raise BenchError(message)


async def answer(server: PostgresRunner, question: str) -> tuple[int, ...]:
    """Return the one row that a question has."""
    connection = await asyncpg.connect(server.url())
    try:
        return tuple(await connection.fetchrow(question) or ())
    finally:
        await connection.close()


def postmaster(server: PostgresRunner) -> dict[str, int]:
    """Name the server's process; those of its connections are its children, and counted with it."""
    assert server.process
    return {"postgres": server.process.pid}


def more_cpu(goal: Goal, ours: list[Sample], peer: list[Sample], settings: dict[str, Any]) -> Entry:
    """Compare the CPU that an operation costs the process itself."""
    mine, theirs = (median(sample.cpu["writer"] for sample in samples) for samples in (ours, peer))
    pairs = [round(a.cpu["writer"] / b.cpu["writer"], 3) for a, b in zip(ours, peer, strict=True)]
    return Entry(goal, mine, theirs, detail=report.cpu_detail(ours, peer) | {"ratios": pairs, "settings": settings}).judge()


def consuming(bench: Bench) -> list[Entry]:
    """Drain a stream into an effect table: inbox id and effect together, acknowledged afterwards, in order per key."""
    with postgres() as server:
        nats = bench.nats()
        theirs, theirs_fill = bench.worker("peers.asyncpg_consumer"), bench.worker("peers.asyncpg_consumer")
        mine, mine_fill = bench.worker("ours.consumer"), bench.worker("ours.producer")

        def peer(mode: str, measured: int) -> Sample:
            where = {"url": nats.url, "topic": bench.fresh("bench")}
            how = {**where, "dsn": server.url(), "schema": bench.fresh("peer"), "mode": mode}
            return drained(nats, theirs, theirs_fill, bench.effort.count(measured), where, how, **postmaster(server))

        def ours(mode: str, measured: int) -> Sample:
            directory, store = str(bench.scratch / bench.fresh("store")), server.url(schema=bench.fresh("mail"), sessions=str(CONNECTIONS))
            how = {"url": nats.url, "directory": directory, "store": store, "mode": mode}
            mine.ask("declare", **how)
            filling = {"url": nats.url, "directory": directory, "store": server.url(schema=bench.fresh("orders"))}
            return drained(nats, mine, mine_fill, bench.effort.count(measured), filling, how, **postmaster(server))

        samples = bench.compare(
            [
                Side("by hand, a transaction a message", lambda: peer("each", 2_000)),
                Side("Linkspan, recorded", lambda: ours("inbox", 8_000)),
                Side("by hand, a transaction a fetch", lambda: peer("fetched", 6_000)),
                Side("Linkspan, written at once", lambda: ours("writes", 600)),
            ]
        )
    settings = {"ours": OURS, "peer": peers.ASYNCPG_CONSUMER, "server": f"{SETTINGS}; {nats.settings}"}
    mine_samples = samples["Linkspan, recorded"]
    at_once = settings | {"peer": "the same with the effect written at once (ctx.tx.execute), so that each message is a transaction"}
    return [
        report.throughput(CONSUME, mine_samples, samples["by hand, a transaction a message"], settings=settings),
        report.throughput(CONSUME_GROUPS, mine_samples, samples["Linkspan, written at once"], settings=at_once),
        report.throughput(CONSUME_FETCHED, mine_samples, samples["by hand, a transaction a fetch"], settings=settings),
    ]
