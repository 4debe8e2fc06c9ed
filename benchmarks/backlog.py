"""What an event costs beside a backlog: a million rows in outbox, inbox and dead letters against a thousand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.backlog_fill import EACH, PostgresFill, SqliteFill, create_database
from benchmarks.harness import BenchError, Sample, Side, cpu_ns, median
from benchmarks.postgres_server import SETTINGS, postgres
from benchmarks.report import Entry, Goal

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Nats, Worker
    from benchmarks.rows import Bench

FEW, MANY = 1_000, 1_000_000
BEHIND = 20
"""Events of a key that is held and advanced: the first fails once, the others wait behind it."""
TURNS = 3
"""Times that the outbox is filled up and relayed for one figure: each takes a fraction of a second, since few rows are to stay few."""
QUIET = 0.1
"""Share of a core below which a process that has started is at rest."""
OURS = "Linkspan, public API, typed handler, default middleware, trace context, uvloop; CPU of the service's process and of the database"
WORKS = {
    "relay": "an event relayed beside rows in the outbox",
    "consume": "an event handled beside rows in the inbox, an old one forgotten",
    "hold": f"an event held and advanced beside dead letters, {EACH} a key",
}
FLAT = {
    (work, store): Goal(f"CPU of {what} ({store}): {MANY:,} / {FEW:,}", 1.2, unit="us", most=True)
    for store in ("SQLite", "PostgreSQL")
    for work, what in WORKS.items()
}


@dataclass
class Pile:
    """A store with so many rows in each table, and who works beside them."""

    bench: Bench
    rows: int
    directory: str
    stores: dict[str, str]
    fill: SqliteFill | PostgresFill
    nats: Nats
    relays_to: Nats
    pids: dict[str, int]
    mail: Worker
    filler: Worker
    rounds: int = 0

    def prepare(self) -> None:
        """Make the tables, fill them, start to consume, wait until that has settled, and warm up."""
        self.mail.ask("declare", url=self.nats.url, store=self.stores["mail"], directory=self.directory, service="mail")
        self.mail.ask("declare", url=self.relays_to.url, store=self.stores["orders"], directory=self.directory, service="orders")
        self.fill.held(self.rows)
        self.mail.ask("start", url=self.nats.url, store=self.stores["mail"], directory=self.directory, timeout=120.0)
        at_rest(self.mail.pid)
        self._handled(400, 1, 0)  # the first ones cost more
        self._handled(400, BEHIND, 0)

    def relay(self) -> Sample:
        """Relay what lies on top of the backlog, several times, each by a process that is killed in the midst of it."""
        return mean([self._relayed(self.bench.effort.count(8_000)) for _ in range(TURNS)])

    def _relayed(self, operations: int) -> Sample:
        self.rounds += 1
        self.fill.outbox(self.rows + operations, self.rounds)
        process = self.bench.worker("ours.backlog")
        where = {"url": self.relays_to.url, "store": self.stores["orders"], "directory": self.directory}
        answer = process.ask("relay", **where, operations=operations, pids=self.pids)
        process.stop()
        self.relays_to.reset()
        return Sample.of(answer)

    def consume(self) -> Sample:
        """Handle what comes, then forget as many ids."""
        operations = self.bench.effort.count(6_000)
        answer = self._handled(operations, 1, operations // 8)
        swept = self.mail.ask("sweep", count=operations, pids=self.pids)
        answer["cpu"] = {role: value + swept["cpu"][role] for role, value in answer["cpu"].items()}
        return Sample.of(answer)

    def hold(self) -> Sample:
        """Let the first event of each key fail, so that it is held with all that come behind it, until it succeeds."""
        return Sample.of(self._handled(self.bench.effort.count(2_000), BEHIND, 0))

    def _handled(self, operations: int, each: int, skip: int) -> dict[str, float]:
        total = operations + 2 * skip
        self.mail.ask("expect", skip=skip, measured=operations, total=total, pids=self.pids)
        self.filler.ask("publish", url=self.nats.url, operations=total, prefix=self.bench.fresh("key"), each=each)
        return self.mail.ask("result")


def mean(samples: list[Sample]) -> Sample:
    """Make one of samples of equal length."""
    cpu = {role: sum(sample.cpu[role] for sample in samples) / len(samples) for role in samples[0].cpu}
    return Sample(len(samples) / sum(1 / sample.rate for sample in samples), cpu)


def at_rest(pid: int, patience: float = 120.0) -> None:
    """Wait until a process does next to nothing. Raises `BenchError`."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before, begun = cpu_ns(pid), time.monotonic_ns()
        time.sleep(1.2)  # longer than the time between two looks at what is held
        if cpu_ns(pid) - before < QUIET * (time.monotonic_ns() - begun):
            return
    message = f"process {pid} was not at rest within {patience:g} s"
    raise BenchError(message)


def backlog(bench: Bench) -> list[Entry]:
    """Measure both stores, one after the other."""
    entries = _measured(bench, "SQLite", lambda rows: _sqlite(bench, rows))
    try:
        with postgres() as server:
            assert server.process is not None
            pids = {"postgres": server.process.pid}
            entries += _measured(bench, "PostgreSQL", lambda rows: _postgres(bench, rows, server.url, pids))
    except BenchError as error:
        entries += [report.not_measured(goal, str(error).splitlines()[0]) for (_, store), goal in FLAT.items() if store == "PostgreSQL"]
    return entries


def _measured(bench: Bench, store: str, make: Callable[[int], Pile]) -> list[Entry]:
    piles = {rows: make(rows) for rows in (FEW, MANY)}
    for rows, pile in piles.items():
        began = time.monotonic()
        pile.prepare()
        bench.show(f"          {store} with {rows:,} rows each: filled and at rest after {time.monotonic() - began:.0f} s")
    sides = [Side(f"{store}, {work}, {rows:,}", getattr(pile, work)) for work in WORKS for rows, pile in piles.items()]
    samples = bench.compare(sides)
    for pile in piles.values():
        pile.mail.ask("stop")
    return [_flat(FLAT[work, store], *(samples[f"{store}, {work}, {rows:,}"] for rows in (MANY, FEW)), store) for work in WORKS]


def _flat(goal: Goal, many: list[Sample], few: list[Sample], store: str) -> Entry:
    """Compare CPU per event."""
    detail = report.cpu_detail(many, few)
    detail["ratios"] = [round(a.cpu_total / b.cpu_total, 3) for a, b in zip(many, few, strict=False)]
    detail["settings"] = {"ours": OURS, "store": SETTINGS if store == "PostgreSQL" else "SQLite, synchronous=FULL"}
    return Entry(goal, *(median(sample.cpu_total for sample in side) for side in (many, few)), detail=detail).judge()


def _sqlite(bench: Bench, rows: int) -> Pile:
    place = bench.scratch / bench.fresh("pile")
    place.mkdir()
    return _pile(bench, rows, str(place), {"mail": "", "orders": ""}, SqliteFill(place), {})


def _postgres(bench: Bench, rows: int, url: Callable[..., str], pids: dict[str, int]) -> Pile:
    name = bench.fresh("pile")
    asyncio.run(create_database(url(), name))
    stores = {service: url(name, schema=service) for service in ("mail", "orders")}
    return _pile(bench, rows, str(bench.scratch / name), stores, PostgresFill(url(name)), pids)


def _pile(bench: Bench, rows: int, directory: str, stores: dict[str, str], fill: SqliteFill | PostgresFill, pids: dict[str, int]) -> Pile:
    mail, filler = bench.worker("ours.backlog"), bench.worker("ours.backlog")
    return Pile(bench, rows, directory, stores, fill, bench.nats(), bench.nats(), pids, mail, filler)
