"""Whole systems in simulated time, seed after seed: `python -m proof.simulation --seeds 10000`, or one again: `--seed 4711`.

What was done is appended to `--resume FILE`, so an interrupted run goes on where it stopped, and shards (`--first 1 --seeds 5000`,
`--first 5001 --seeds 5000`) can run at different times. `--minutes` ends it earlier; the count says how far it came.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.shop import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

FAST = Path("/dev/shm")
"""Simulated power is never cut, so files need no disk."""
LIVES = 50
"""Seeds that one process lives through."""


def one(seed: int) -> dict[str, Any]:
    """Live through one seed."""
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as folder:
        found = run(seed, Path(folder))
    return {
        "seed": seed,
        "digest": found.digest,
        "deaths": found.deaths,
        "steps": found.steps,
        "effects": found.effects,
        "violations": [f"{each.rule} {each.consumer} {each.id}: {each.text}" for each in found.violations],
    }


def lived_through(seeds: Iterable[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Live through seeds, some side by side, in processes that are replaced: what was killed in a history is never tidied up."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=silence, max_tasks_per_child=LIVES) as pool:
        running: set[Future[dict[str, Any]]] = set()
        for seed in seeds:
            running.add(pool.submit(one, seed))
            if len(running) >= 2 * jobs:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ended)
        yield from (each.result() for each in as_completed(running))


def silence() -> None:
    """Log nothing: histories are full of errors that are meant."""
    logging.disable(logging.CRITICAL)


def summary(done: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return the row of the proof."""
    broken = [each for each in done if each["violations"]]
    return {
        "name": "found bugs stay found: whole systems in simulated time, one seed one history",
        "tried": f"{len(done)} seeds, {sum(each['deaths'] for each in done)} deaths, {sum(each['effects'] for each in done)} effects",
        "violations": len(broken),
        "seeds": [each["seed"] for each in broken],
        "holds": bool(done) and not broken,
        "seconds": round(seconds, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a seed broke a promise."""
    parser = argparse.ArgumentParser(
        prog="python -m proof.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="live through one seed and print what it did")
    parser.add_argument("--first", type=int, default=1, help="the first of many seeds (default: 1)")
    parser.add_argument("--seeds", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many minutes (default: 60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="histories side by side (default: a core each)")
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stderr)
        found = one(options.seed)
        print(json.dumps(found, indent=2))
        return 1 if found["violations"] else 0
    done: list[dict[str, Any]] = []
    if options.resume is not None and options.resume.exists():
        done = [json.loads(line) for line in options.resume.read_text("utf-8").splitlines()]
    known = {each["seed"] for each in done}
    began = time.monotonic()
    end = began + options.minutes * 60
    seeds = (seed for seed in range(options.first, options.first + options.seeds) if seed not in known)
    for found in lived_through(itertools.takewhile(lambda _: time.monotonic() < end, seeds), options.jobs):
        done.append(found)
        if options.resume is not None:
            with options.resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
        if done[-1]["violations"]:
            print(
                f"seed {found['seed']}: {found['violations'][0]}; again with: python -m proof.simulation --seed {found['seed']}", flush=True
            )
        elif len(done) % 100 == 0:
            print(f"{len(done)} seeds, {time.monotonic() - began:.0f} s", flush=True)
    row = summary(done, time.monotonic() - began)
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=2) + os.linesep, encoding="utf-8")
    print(json.dumps(row, indent=2))
    return 0 if row["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
