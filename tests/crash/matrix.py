"""The crash matrix: which points a workload passes, a run for each of them, and what became of it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from linkspan.testing.crash import points
from tests.crash.running import SERVICES, Run
from tests.crash.topology import sqlite_nats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.crash.topology import Topology

    Place = Callable[[Path], AbstractAsyncContextManager[Topology]]

EXCUSED = {
    "broker.nack": "the core gives nothing back to the broker: it retries, then holds the message in the store",
    "client.publish": "passed by programs that are no service: the driver dies there instead of a service",
    "handover.move": "passed by services whose outbox is in the user's database: tests/integration/test_handover_crash.py dies there",
}
"""Points that services do not pass, and why."""

SECOND_LIFE = ("store.commit.before:1", "store.commit.after:2", "relay.publish.after:1", "broker.ack.before:1", "inbox.claim.after:1")
"""Where a process dies again while it recovers."""

AT_ONCE = 3
"""Systems side by side: each waits for the disk and for due times most of the time."""

LIMIT = 240.0
"""Seconds until a run has to be quiet: start, leases and elections included, on a machine with forty processes waiting for a core."""


@dataclass(slots=True)
class Result:
    """What one run of the matrix showed. `spec` is `process=point:occurrence:how`, several processes joined by `+`."""

    spec: str
    died: int = 0
    violations: list[str] = field(default_factory=list["str"])
    sums: dict[str, int] = field(default_factory=dict["str", "int"])
    seconds: float = 0.0
    topology: str = "sqlite-nats"


def points_died_at(result: Result) -> set[str]:
    """Return the point of a run that was to end one process once, if it did."""
    lives = list(parse(result.spec).values())
    return {lives[0].partition(":")[0]} if len(lives) == 1 and result.died else set()


def names_in_source() -> set[str]:
    """Return every point that linkspan passes on real engines."""
    return {place.name for place in points() if place.module != "brokers/memory.py"}


def parse(spec: str) -> dict[str, str]:
    """Return each process's crash points."""
    return dict(part.split("=", 1) for part in spec.split("+") if part)


async def record(folder: Path, on: Place = sqlite_nats) -> dict[str, dict[str, int]]:
    """Run the workload without a crash and count the points that each process passes."""
    run = Run(folder, on=on, limit=LIMIT)
    async with run.started():
        outcome = await run.finish()
        assert not outcome.violations, outcome.violations
        for name in SERVICES:
            assert await run.terminate(name) == 0
        return {name: run.counts(name) for name in (*SERVICES, "driver")}


def each_point(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a run for the first and for a later occurrence of each point in each process, `os._exit` and SIGKILL in turn."""
    specs: list[str] = []
    for process in sorted(counts):
        for name in sorted(counts[process]):
            for occurrence in sorted({1, max(1, counts[process][name] * 3 // 5)}):
                specs.append(f"{process}={name}:{occurrence}:{('exit', 'kill')[len(specs) % 2]}")
    return specs


def combined(counts: Mapping[str, Mapping[str, int]], seed: int, number: int) -> list[str]:
    """Return runs in which both services die, each at a random passing of a random point, and one of them again while it recovers."""
    source = random.Random(seed)
    specs: list[str] = []
    for _ in range(number):
        lives = {process: _random_point(counts[process], source) for process in SERVICES}
        lives[source.choice(SERVICES)] += f";{source.choice(SECOND_LIFE)}:{source.choice(('exit', 'kill'))}"
        specs.append("+".join(f"{process}={crash}" for process, crash in lives.items()))
    return specs


def _random_point(counts: Mapping[str, int], source: random.Random) -> str:
    name = source.choice(sorted(counts))
    return f"{name}:{source.randint(1, max(1, counts[name] * 4 // 5))}:{source.choice(('exit', 'kill'))}"


async def run_one(spec: str, folder: Path, on: Place = sqlite_nats) -> Result:
    """Run the workload with one crash plan; the folder is kept when something is wrong."""
    run = Run(folder, crash=parse(spec), on=on, limit=LIMIT)
    try:
        async with run.started():
            outcome = await run.finish()
    except AssertionError as error:
        return Result(spec, len(run.outcome.deaths), [f"failed: {error}"])
    found = [f"{each.rule} {each.consumer} {each.id}: {each.text}" for each in outcome.violations]
    if not found:
        shutil.rmtree(folder, ignore_errors=True)
    return Result(spec, len(outcome.deaths), found, outcome.sums, round(outcome.seconds, 2))


async def run_all(
    specs: Sequence[str],
    folder: Path,
    *,
    resume: Path | None = None,
    report: Callable[[Result], None] | None = None,
    on: Place = sqlite_nats,
    topology: str = "sqlite-nats",
    until: float = math.inf,
) -> list[Result]:
    """Run each plan, a few at once, none after `until` (monotonic).

    With `resume`, results are appended to that file and those in it are not tried again.
    """
    results = {result.spec: result for result in (load(resume) if resume is not None else ()) if result.topology == topology}
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, spec: str) -> None:
        async with limit:
            if time.monotonic() > until:
                return
            result = await run_one(spec, folder / f"run{number}", on)
            if not result.died and (lower := _earlier(spec)) != spec:  # how many there are varies with the groups that form
                result = await run_one(lower, folder / f"run{number}-again", on)
                result.spec = spec
        result.topology = topology
        results[spec] = result
        if resume is not None:
            with resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        if report is not None:
            report(result)

    await asyncio.gather(*(one(number, spec) for number, spec in enumerate(specs) if spec not in results))
    return [results[spec] for spec in specs if spec in results]


def _earlier(spec: str) -> str:
    """Return the plan with each point's first occurrence."""
    lives = {process: ";".join(f"{life.split(':')[0]}:1:exit" for life in crash.split(";")) for process, crash in parse(spec).items()}
    return "+".join(f"{process}={crash}" for process, crash in lives.items())


def load(path: Path) -> Iterable[Result]:
    """Read results of an earlier run; a line that was cut off is tried again."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield Result(**json.loads(line))
