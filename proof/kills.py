"""Acknowledged events survive kills: `python -m proof.kills --kills 1000`, or one batch again: `--topology postgres-nats --seed 7`.

On SQLite with NATS, PostgreSQL with three NATS servers and PostgreSQL with three Kafka brokers, services (each with its relay) and
brokers are ended by SIGKILL while callers go on asking: at random moments, at times all at once, and services at named commit points
too, one after the other. What died is started again. Each batch of kills is one system that is drained at its end; then everything
that was acknowledged, at each hop, must have its effect once, in order per key. What is killed, and the pauses in between, follow from
the batch's seed. Done batches are appended to `--resume FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from tests.crash.children import Lane
from tests.crash.matrix import EXCUSED, names_in_source
from tests.crash.running import Run
from tests.crash.topology import TOPOLOGIES, engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.postgres_runner import PostgresRunner

LOAD = (
    *(Lane(f"call{number}", "call", pause=0.15) for number in range(4)),
    *(Lane(f"checked{number}", "checked", "checked", pause=0.15) for number in range(2)),
    *(Lane(f"send{number}", "send", pause=0.15) for number in range(4)),
    *(Lane(f"burst{number}", "call", fan=8, burst=True, pause=1.0) for number in range(2)),
    Lane("slow", "call", "slow", pause=0.15),
    Lane("flaky", "send", "flaky", pause=0.3),
    Lane("parked", "send", "parked", pause=1.0),
    Lane("dead", "send", "dead", pause=1.5),
    Lane("later", "send", "later", pause=0.3),
    Lane("large", "send", "large", pause=0.5),
)
"""Every way in and every way to fail, until the last kill."""

BROKER = 0.35
"""The share of kills that hit a broker."""
ALL = 0.05
"""The share of kills that hit everything that runs."""
AT_POINT = 0.5
"""The share of a service's lives that are to end at a commit point."""
SPARED = 8.0
"""Seconds in which such a life is not ended otherwise, so that it may reach its point."""
DRAIN = 180.0
PAUSES = {"sqlite-nats": (0.05, 0.6), "postgres-nats": (0.05, 1.0), "postgres-kafka": (0.05, 1.0)}
"""Seconds between two kills, from and to."""
SLOWER = {"sqlite-nats": 1.0, "postgres-nats": 2.0, "postgres-kafka": 2.0}
"""How much longer callers wait: each message is synced three times where there are three brokers."""


def load(topology: str) -> list[Lane]:
    """Return what is asked for."""
    return [replace(lane, pause=lane.pause * SLOWER[topology]) for lane in LOAD]


def plan(kills: int, batch: int, topologies: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (topology, seed, kills) of each batch: equal shares, turn by turn."""
    shares = {name: kills // len(topologies) + (place < kills % len(topologies)) for place, name in enumerate(topologies)}
    found: list[tuple[str, int, int]] = []
    seed = 0
    while any(shares.values()):
        for name in topologies:
            if share := min(batch, shares[name]):
                seed += 1
                found.append((name, seed, share))
                shares[name] -= share
    return found


class Killer:
    """Decides by a seed who dies next; the points come one after the other, so that many batches try all of them."""

    def __init__(self, run: Run, topology: str, seed: int) -> None:
        self._run = run
        self._source = random.Random(f"{topology}/{seed}")
        names = sorted(name for name in names_in_source() if name.rpartition(".")[0] not in EXCUSED)
        random.Random(0).shuffle(names)  # neighbours in the alphabet are passed together, or not at all
        begin = seed * 7 % len(names)
        self._points = cycle(names[begin:] + names[:begin])
        self._began = time.monotonic()
        self.log: list[str] = []
        self._brokers = 0
        self._spared: dict[str, float] = {}

    @property
    def kills(self) -> int:
        """Count services that died, by signal or at a point, and brokers."""
        return self._brokers + len(self._run.outcome.deaths)

    async def pause(self, between: tuple[float, float]) -> None:
        """Wait for the next moment."""
        await asyncio.sleep(self._source.uniform(*between))

    def strike(self) -> None:
        """Kill a broker, a process, or at times everything."""
        chance = self._source.random()
        everything = chance > 1 - ALL
        hit: list[str] = []
        if everything or chance < BROKER:
            hit += self._run.topology.broker.kill(self._source)
            self._brokers += len(hit)
        if everything or not hit:
            now = time.monotonic()
            mortal = [name for name in self._run.processes if self._run.alive(name) and (everything or self._spared.get(name, 0.0) < now)]
            chosen = mortal if everything or not mortal else [self._source.choice(mortal)]
            hit += [self._service(name) for name in chosen]
        self.log += [f"{time.monotonic() - self._began:.2f} {each}" for each in hit]

    def _service(self, name: str) -> str:
        after = ""
        if self._source.random() < AT_POINT:
            after = f"{next(self._points)}:{self._source.randint(1, 3)}:kill"
            self._run.crash[name] = after
            self._spared[name] = time.monotonic() + SPARED
        self._run.kill(name)
        return f"{name}{after and ', next life until '}{after}"


async def one_batch(topology: str, seed: int, kills: int, folder: Path, server: PostgresRunner | None) -> dict[str, Any]:
    """Run one system, kill, drain and check."""
    on = TOPOLOGIES[topology] if topology == "sqlite-nats" else partial(TOPOLOGIES[topology], server=server)
    run = Run(folder, load(topology), on=on, limit=DRAIN, endless=True, instances=1 if topology == "sqlite-nats" else 2)
    killer = Killer(run, topology, seed)
    began = time.monotonic()
    problems: list[str] = []
    try:
        async with run.started():
            await run.until(lambda: all(run.started_once(name) for name in run.processes), limit=90.0)
            while killer.kills < kills:
                await killer.pause(PAUSES[topology])
                killer.strike()
            run.crash.clear()
            killed = time.monotonic()
            (folder / "enough").touch()
            await run.finish()
            drained = time.monotonic() - killed
    except (AssertionError, TimeoutError) as error:
        problems.append(f"failed: {error or repr(error)}")
        drained = 0.0
    problems += [f"{each.rule} {each.consumer} {each.id}: {each.text}" for each in run.outcome.violations]
    if not problems:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "topology": topology,
        "seed": seed,
        "kills": killer.kills,
        "points": points_died_at(run),
        "log": killer.log,
        "sums": run.outcome.sums,
        "violations": problems,
        "seconds": round(time.monotonic() - began, 1),
        "drain": round(drained, 1),
    }


def points_died_at(run: Run) -> list[str]:
    """Return the points at which lives ended."""
    return sorted({crash.partition(":")[0] for _, crash in run.ended_at})


def summary(done: Sequence[dict[str, Any]], missing: dict[str, str]) -> dict[str, Any]:
    """Return the row of the proof."""
    each: dict[str, dict[str, Any]] = {}
    for batch in done:
        there = each.setdefault(batch["topology"], {"kills": 0, "acknowledged": 0, "effects": 0, "violations": 0, "seconds": 0.0})
        there["kills"] += batch["kills"]
        there["acknowledged"] += batch["sums"].get("acknowledged", 0)
        there["effects"] += sum(batch["sums"].get(what, 0) for what in ("place", "react", "close", "note"))
        there["violations"] += len(batch["violations"])
        there["seconds"] = round(there["seconds"] + batch["seconds"], 1)
    total = {what: sum(there[what] for there in each.values()) for what in ("kills", "acknowledged", "effects", "violations")}
    points = {point for batch in done for point in batch["points"]}
    per = ", ".join(f"{there['kills']} on {name}" for name, there in each.items())
    tried = f"{total['kills']} kills ({per}; at {len(points)} points, else at random), "
    tried += f"{total['acknowledged']} acknowledged requests, {total['effects']} effects"
    tried += "".join(f"; {name} not run: {why}" for name, why in missing.items())
    broken = [batch for batch in done if batch["violations"]]
    return {
        "tried": tried,
        "each": each,
        "points": sorted(points),
        "violations": total["violations"],
        "first": [f"{batch['topology']} seed {batch['seed']}: {batch['violations'][0]}" for batch in broken[:5]],
        "missing": missing,
        "holds": bool(done) and not broken,
    }


async def prove(
    options: argparse.Namespace, folder: Path, server: PostgresRunner | None, there: Sequence[str]
) -> list[dict[str, Any]] | None:
    """Run what is left of the plan; None where the time is over before."""
    end = time.monotonic() + options.minutes * 60
    batches = plan(options.kills, options.batch, there)
    if options.seed is not None:
        batches = [(there[0], options.seed, options.batch)]
    done: dict[tuple[str, int], dict[str, Any]] = {}
    if options.resume is not None and options.resume.exists():
        lines = [line for line in options.resume.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        done = {(found["topology"], found["seed"]): found for found in map(json.loads, lines)}
    for topology, seed, kills in batches:
        if (topology, seed) in done:
            continue
        if time.monotonic() > end:
            return None
        found = await one_batch(topology, seed, kills, folder / f"{topology}-{seed}", server)
        done[topology, seed] = found
        print(f"{topology} seed {seed}: {found['kills']} kills, {found['sums']}, {found['seconds']} s, drained in {found['drain']} s")
        print("".join(f"    {problem}\n" for problem in found["violations"]), end="", flush=True)
        if options.resume is not None:
            with options.resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
    return [found for key, found in done.items() if key in {batch[:2] for batch in batches}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m proof.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how many over all topologies (default: 50)")
    parser.add_argument("--batch", type=int, default=25, help="kills of one system (default: 25)")
    parser.add_argument("--topology", nargs="+", choices=TOPOLOGIES, default=list(TOPOLOGIES), help="only these")
    parser.add_argument("--seed", type=int, help="one batch again")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin no batch after so many minutes (default: 90)")
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the JSON summary goes")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="linkspan-kills-"))
    with engines(options.topology) as (there, missing, server), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done = runner.run(prove(options, folder, server, there))
    with suppress(OSError):
        folder.rmdir()  # what is kept is the folder of a batch that failed
    row = {"unfinished": "its minutes were over: run again, it goes on"} if done is None else summary(done, missing)
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=2) + os.linesep, encoding="utf-8")
    print(json.dumps(row, indent=2))
    return 0 if row.get("holds", True) else 1


if __name__ == "__main__":
    sys.exit(main())
