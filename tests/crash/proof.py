"""The long form of the crash matrix: `python -m tests.crash.proof --points all --seeds 20 --resume FILE --out SUMMARY.json`.

Each point is tried at its first and a later passing in each process, then per seed as many pairs of crashes as there are
points, at random passings. Interrupted, it goes on where it stopped when it is given the same `--resume` file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from tests.crash.matrix import combined, each_point, names_in_source, record, run_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.matrix import Result


def summary(results: Sequence[Result], counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return what was tried and what was found, for a report."""
    passed = {name for each in counts.values() for name in each}
    deaths = sum(result.died for result in results)
    acknowledged = sum(result.sums.get("acknowledged", 0) for result in results)
    return {
        "name": "crash matrix",
        "points": sorted(names_in_source() & passed),
        "not_passed": sorted(names_in_source() - passed),
        "tried": f"{deaths} deaths at {len(names_in_source() & passed)} points, {acknowledged} acknowledged requests",
        "runs": len(results),
        "deaths": deaths,
        "not_reached": [result.spec for result in results if not result.died],
        "requests": sum(result.sums.get("invoked", 0) for result in results),
        "acknowledged": acknowledged,
        "effects": sum(result.sums.get(what, 0) for result in results for what in ("place", "react", "close", "note")),
        "violations": sum(len(result.violations) for result in results),
        "found": [{"spec": result.spec, "found": result.violations} for result in results if result.violations],
        "holds": deaths > 0 and not any(result.violations for result in results),
    }


async def recorded(resume: Path | None, folder: Path) -> Mapping[str, Mapping[str, int]]:
    """Count the points, or take the counts that an interrupted proof began with, so that its plan is the same again."""
    kept = None if resume is None else resume.with_name(f"{resume.name}.plan")
    if kept is not None and kept.exists():
        counts: Mapping[str, Mapping[str, int]] = json.loads(kept.read_text(encoding="utf-8"))
        return counts
    print(f"Recording the points that the workload passes; failing runs stay in {folder}.")
    counts = await record(folder / "record")
    if kept is not None:
        kept.write_text(json.dumps(counts), encoding="utf-8")
    return counts


async def prove(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Record, plan, run, and sum up."""
    counts = await recorded(options.resume, folder)
    specs = each_point(counts) if options.points == "all" else []
    if options.points not in {"all", "none"}:
        specs = [spec for spec in each_point(counts) if f"={options.points}" in spec]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        specs += [spec for spec in combined(counts, seed, options.pairs) if spec not in specs]
    done = 0

    def report(result: Result) -> None:
        nonlocal done
        done += 1
        ended = "VIOLATED" if result.violations else "holds" if result.died else "not reached"
        print(f"[{done}/{len(specs)}] {ended:11} {result.seconds:5.1f} s  {result.spec}", flush=True)
        for sentence in result.violations:
            print(f"    {sentence}")

    return summary(await run_all(specs, folder, resume=options.resume, report=report), counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="all", help="all, none, or the beginning of a point's name (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of combined crashes (default: 1)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=20, help="combined crashes per seed (default: 20)")
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="linkspan-crash-"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(prove(options, folder))
    text = json.dumps(found, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
