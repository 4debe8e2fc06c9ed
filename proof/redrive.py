"""A redrive cannot cause an outage: `python -m proof.redrive --count 20000` (the short form: `--count 2000 --seconds 6`).

As many dead letters as asked, and live messages all the time. First they are redriven while what they need is still broken: it must
stop by itself within 5 seconds. Then it is mended and they are redriven to the end. Live messages' 99th percentile from publication to
effect is compared with that of live messages without a redrive; nothing may have its effect twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import uvloop

from linkspan.letters.redrive import Redrive, Redrives
from linkspan.telemetry.logs import set_up
from proof.letters_app import Ordered, app

if TYPE_CHECKING:
    from linkspan import App, Service
    from linkspan.ports import Store

LIVE_KEYS = 50
WINDOW = 2.0
"""Seconds of live messages that give one 99th percentile; their median is compared."""


class Live:
    """Publishes messages of other keys at a steady rate, as long as it is asked to."""

    def __init__(self, running: App, orders: Service, rate: float) -> None:
        self._running = running
        self._orders = orders
        self._rate = rate
        self.sent = 0
        self.on = True

    async def run(self) -> None:
        """Publish until `on` is taken away."""
        began = time.monotonic()
        while self.on:
            async with self._running.transaction(self._orders) as ctx:
                key, number = self.sent % LIVE_KEYS, self.sent // LIVE_KEYS + 1
                await ctx.publish(Ordered(key=f"live{key}", number=number, kind="", sent=time.time()))
            self.sent += 1
            await asyncio.sleep(max(began + self.sent / self._rate - time.monotonic(), 0))


async def until(store: Store, sql: str, wanted: int, most: float = 600.0) -> None:
    """Wait until a query answers so."""
    end = time.monotonic() + most
    while (found := (await store.read(sql))[0][0]) != wanted:
        assert time.monotonic() < end, f"not within {most:.0f} s: {sql} is {found}, wanted {wanted}"
        await asyncio.sleep(0.2)


async def make_dead(running: App, orders: Service, store: Store, count: int) -> None:
    """Publish messages that the broken dependency refuses, a key each."""
    for first in range(0, count, 500):
        async with running.transaction(orders) as ctx:
            for key in range(first, min(first + 500, count)):
                await ctx.publish(Ordered(key=f"bad{key}", number=1, kind="final", sent=time.time()))
    await until(store, "select count(*) from linkspan_letter where state = 'dead'", count)


async def ended(store: Store, redrive: Redrive) -> tuple[Redrive, float]:
    """Ask for a redrive and wait for its end; return it and the seconds from its beginning to its end."""
    redrives = Redrives(store)
    assert await redrives.ask(redrive)
    now: Redrive | None = redrive
    while now is None or now.active:
        await asyncio.sleep(0.05)
        now = await redrives.one(redrive.id)
    return now, now.ended - redrive.at


async def p99(store: Store, begin: float, end: float) -> float:
    """Return the median of the 99th percentiles of windows, in milliseconds from publication to effect."""
    rows = await store.read("select sent, at - sent from effect where key like 'live%' and sent >= ? and sent < ?", (begin, end))
    windows: dict[int, list[float]] = {}
    for sent, took in rows:
        windows.setdefault(int((sent - begin) / WINDOW), []).append(took)
    found = [sorted(each)[int(len(each) * 0.99)] * 1000 for each in windows.values() if len(each) > 20]  # noqa: PLR2004 - too few say nothing
    return median(found)


async def prove(folder: Path, count: int, rate: float, live: float, seconds: float) -> dict[str, Any]:
    """Redrive while it is broken, then mended, under live load."""
    running, orders = app(folder)
    async with running:
        store = running.running["mail"].store
        assert store is not None
        await make_dead(running, orders, store, count)
        load = Live(running, orders, live)
        publishing = asyncio.create_task(load.run())
        asked = Redrive("r-broken", "mail", "", "", 1 << 60, count, rate, 20, 4.0, "proof", "still broken", 0.0)

        await asyncio.sleep(2.0)
        calm = time.time(), time.time() + seconds
        await asyncio.sleep(seconds)
        broken, stopped_in = await ended(store, replace(asked, at=time.time()))
        (folder / "mended").touch()
        begin = time.time()
        mended, took = await ended(store, replace(asked, id="r-mended", why="mended", at=time.time()))
        end = time.time()
        await asyncio.sleep(1.0)
        calm_again = time.time(), time.time() + seconds
        await asyncio.sleep(seconds)
        load.on = False
        await publishing
        await until(store, "select count(*) from effect", load.sent + count)

        tried = (await Redrives(store).progress(broken)).taken
        without = median([await p99(store, *calm), await p99(store, *calm_again)])
        during = await p99(store, begin, end)
        twice = await store.read("select key, number, count(*) from effect group by key, number having count(*) > 1 limit 5")
        ((letters,),) = await store.read("select count(*) from linkspan_letter")
    violations = [f"{key} {number}: {times} effects" for key, number, times in twice]
    if broken.state != "stopped" or stopped_in > 5.0:  # noqa: PLR2004 - the promise
        violations.append(f"the redrive into a broken dependency ended as {broken.state} after {stopped_in:.1f} s")
    if mended.state != "done" or letters:
        violations.append(f"the redrive ended as {mended.state}, {letters} letters are left")
    return {
        "name": "redrive cannot cause an outage",
        "tried": f"{count} letters at {rate:g}/s beside {live:g} live messages a second",
        "stopped_in": round(stopped_in, 2),
        "tried_while_broken": tried,
        "redriven_in": round(took, 1),
        "live_p99_ms": round(without, 2),
        "live_p99_ms_during": round(during, 2),
        "ratio": round(during / without, 3),
        "violations": len(violations),
        "first": violations[:5],
        "holds": not violations and during <= 1.1 * without,
    }


def main() -> int:
    """Read the options, prove, print."""
    parser = argparse.ArgumentParser(prog="proof.redrive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=100.0, help="letters redriven a second")
    parser.add_argument("--live", type=float, default=200.0, help="live messages a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of live messages without a redrive, before and after")
    parser.add_argument("--resume", type=Path, help="not used: a run is whole")
    parser.add_argument("--out", type=Path, help="where the row goes")
    options = parser.parse_args()
    set_up("off", "error")
    folder = Path(tempfile.mkdtemp(prefix="linkspan-redrive-"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(prove(folder, options.count, options.rate, options.live, options.seconds))
    if not found["violations"]:
        shutil.rmtree(folder)
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
