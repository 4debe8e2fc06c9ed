"""The long form of the crash matrix: `python -m tests.crash.proof --points all --seeds 20 --resume FILE --out SUMMARY.json`.

Each point is tried at its first and a later passing in each process, then per seed as many pairs of crashes as there are
points, at random passings. Interrupted, or over its `--minutes`, it goes on where it stopped when it is given the same `--resume` file.
`--topology` chooses store and broker: SQLite and NATS, PostgreSQL and NATS, PostgreSQL and Kafka. PostgreSQL and what is beside
it are started once, and used by one run after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from tests.crash.matrix import combined, each_point, names_in_source, points_died_at, record, run_all
from tests.crash.shared import of_kafka, of_nats
from tests.crash.topology import TOPOLOGIES, engines, postgres_kafka, postgres_nats, sqlite_nats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.matrix import Place, Result

    Counts = Mapping[str, Mapping[str, int]]


def summary(results: Sequence[Result], counts: Mapping[str, Counts], missing: Mapping[str, str]) -> dict[str, Any]:
    """Return what was tried and what was found, for a report."""
    passed = {topology: names_in_source() & {name for each in found.values() for name in each} for topology, found in counts.items()}
    there = {topology: [result for result in results if result.topology == topology] for topology in counts}
    died_at = {topology: {name for result in found for name in points_died_at(result)} for topology, found in there.items()}
    deaths = {topology: sum(result.died for result in found) for topology, found in there.items()}
    acknowledged = sum(result.sums.get("acknowledged", 0) for result in results)
    tried = ", ".join(f"{deaths[name]} deaths at {len(died_at[name])} of {len(passed[name])} points on {name}" for name in counts)
    return {
        "name": "crash matrix",
        "points": {topology: sorted(names) for topology, names in passed.items()},
        "not_died_at": {topology: sorted(names - died_at[topology]) for topology, names in passed.items()},
        "not_passed": {topology: sorted(names_in_source() - names) for topology, names in passed.items()},
        "tried": f"{tried}, {acknowledged} acknowledged requests" + "".join(f"; {name} not run: {why}" for name, why in missing.items()),
        "runs": len(results),
        "deaths": sum(deaths.values()),
        "not_reached": [f"{result.topology} {result.spec}" for result in results if not result.died],
        "requests": sum(result.sums.get("invoked", 0) for result in results),
        "acknowledged": acknowledged,
        "effects": sum(result.sums.get(what, 0) for result in results for what in ("place", "react", "close", "note")),
        "violations": sum(len(result.violations) for result in results),
        "found": [f"{result.topology} {result.spec}: {result.violations}" for result in results if result.violations],
        "holds": all(deaths.values()) and not any(result.violations for result in results),
    }


async def recorded(resume: Path | None, folder: Path, topology: str, on: Place) -> Counts:
    """Count the points, or take the counts that an interrupted proof began with, so that its plan is the same again."""
    kept = None if resume is None else resume.with_name(f"{resume.name}.{topology}.plan")
    if kept is not None and kept.exists():
        counts: Counts = json.loads(kept.read_text(encoding="utf-8"))
        return counts
    print(f"Recording the points that the workload passes on {topology}; failing runs stay in {folder}.")
    counts = await record(folder / "record", on)
    if kept is not None:
        kept.write_text(json.dumps(counts), encoding="utf-8")
    return counts


def plan(options: argparse.Namespace, counts: Counts) -> list[str]:
    """Return the runs of one topology."""
    if options.spec:
        return list(options.spec)
    specs = each_point(counts) if options.points == "all" else []
    if options.points not in {"all", "none"}:
        specs = [spec for spec in each_point(counts) if f"={options.points}" in spec]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        specs += [spec for spec in combined(counts, seed, options.pairs) if spec not in specs]
    return specs[:: options.every]


async def prove(options: argparse.Namespace, folder: Path, places: Mapping[str, Place], missing: Mapping[str, str]) -> dict[str, Any]:
    """Record, plan, run, and sum up."""
    if not places:
        return {"not_run": "; ".join(f"{topology}: {why}" for topology, why in missing.items())}
    until = time.monotonic() + options.minutes * 60
    results: list[Result] = []
    counts: dict[str, Counts] = {}
    for topology, on in places.items():
        counts[topology] = {} if options.spec else await recorded(options.resume, folder / topology, topology, on)
        specs = plan(options, counts[topology])
        report = Report(topology, len(specs))
        found = await run_all(specs, folder / topology, resume=options.resume, report=report, on=on, topology=topology, until=until)
        results += found
        if len(found) < len(specs):
            return {"unfinished": f"{len(found)} of {len(specs)} runs on {topology} are done: run again, it goes on"}
    return summary(results, counts, missing)


class Report:
    """Prints each run as it ends."""

    def __init__(self, topology: str, runs: int) -> None:
        self._topology, self._runs, self._done = topology, runs, 0

    def __call__(self, result: Result) -> None:
        """Print one."""
        self._done += 1
        ended = "VIOLATED" if result.violations else "holds" if result.died else "not reached"
        print(f"[{self._done}/{self._runs}] {ended:11} {result.seconds:5.1f} s  {self._topology} {result.spec}", flush=True)
        for sentence in result.violations:
            print(f"    {sentence}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="all", help="all, none, or the beginning of a point's name (default: all)")
    parser.add_argument("--spec", nargs="+", help="just these runs: orders=store.commit.after:9:exit")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of combined crashes (default: 1)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=20, help="combined crashes per seed (default: 20)")
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    parser.add_argument(
        "--topology", nargs="+", choices=TOPOLOGIES, default=["sqlite-nats"], help="store and broker (default: sqlite-nats)"
    )
    parser.add_argument("--nodes", type=int, default=1, help="servers of a broker beside PostgreSQL, each with all messages (default: 1)")
    parser.add_argument("--every", type=int, default=1, help="only each n-th run (default: 1)")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin no run after so many minutes (default: 90)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="linkspan-crash-"))
    with (
        engines(options.topology) as (there, missing, server),
        of_nats(folder, options.nodes) as nats,
        of_kafka(folder, options.nodes) as kafka,
    ):
        places: dict[str, Place] = {
            "sqlite-nats": sqlite_nats,
            "postgres-nats": partial(postgres_nats, server=server, clusters=nats),
            "postgres-kafka": partial(postgres_kafka, server=server, clusters=kafka),
        }
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(prove(options, folder, {name: places[name] for name in there}, missing))
    text = json.dumps(found, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if found.get("holds", True) else 1


if __name__ == "__main__":
    sys.exit(main())
