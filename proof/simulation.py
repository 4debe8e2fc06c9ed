"""Whole systems in simulated time, seed after seed: `python -m proof.simulation --seeds 10000`, or one again: `--seed 4711`.

What was done is appended to `--resume FILE`, so an interrupted run goes on where it stopped, and shards (`--first 1 --seeds 5000`,
`--first 5001 --seeds 5000`) can run at different times. `--minutes` ends it earlier; the count says how far it came.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.shop import run

if TYPE_CHECKING:
    from collections.abc import Sequence

FAST = Path("/dev/shm")
"""Simulated power is never cut, so files need no disk."""


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
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stderr)
        found = one(options.seed)
        print(json.dumps(found, indent=2))
        return 1 if found["violations"] else 0
    logging.disable(logging.CRITICAL)
    done: list[dict[str, Any]] = []
    if options.resume is not None and options.resume.exists():
        done = [json.loads(line) for line in options.resume.read_text("utf-8").splitlines()]
    known = {each["seed"] for each in done}
    began = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        if time.monotonic() - began > options.minutes * 60:
            break
        if seed in known:
            continue
        done.append(one(seed))
        if options.resume is not None:
            with options.resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
        if done[-1]["violations"]:
            print(f"seed {seed}: {done[-1]['violations'][0]}; again with: python -m proof.simulation --seed {seed}", flush=True)
        elif len(done) % 100 == 0:
            print(f"{len(done)} seeds, {time.monotonic() - began:.0f} s", flush=True)
    row = summary(done, time.monotonic() - began)
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=2) + os.linesep, encoding="utf-8")
    print(json.dumps(row, indent=2))
    return 0 if row["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
