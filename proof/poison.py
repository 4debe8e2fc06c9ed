"""Poison stops nobody else: `python -m proof.poison --keys 5000 --each 40` (the short form: `--keys 400 --each 10`).

Messages come at a steady rate, a hundred keys after the other. One key of each hundred is poison: its first message is refused, or fails
again and again, or ends the process, which is started again. The rate at which the other keys' effects come, restarts included, is
compared with that of a clean run. Then what was broken is mended, all dead letters are redriven, and every key must have each of its
messages once, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proof.letters_app import Ordered, app

if TYPE_CHECKING:
    from linkspan import App, Service

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("killer", "final", "transient", "final", "transient")
"""How poison keys fail, in turn."""
PATIENCE = 300.0
POISON = 50
"""Which of each hundred keys is poison."""
LEAST = 0.95
"""The share of the clean rate that the other keys must reach."""


class Mail:
    """The process that reacts, started again whenever it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def keep_up(self) -> None:
        """Start it where it does not run."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([sys.executable, "-m", "proof.letters_app", str(self.folder)], cwd=ROOT)
            self.starts += 1

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Look into its database."""
        file = self.folder / "mail.db"
        if not file.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []

    async def until(self, sql: str, wanted: list[tuple[Any, ...]], more: float = 0.0) -> None:
        """Keep it running until a query answers so."""
        end = time.monotonic() + PATIENCE + 2 * more
        while (found := self.query(sql)) != wanted:
            assert time.monotonic() < end, f"not in time: {sql} is {found}, wanted {wanted}"
            self.keep_up()
            await asyncio.sleep(0.1)


def kind_of(key: int, *, poisoned: bool) -> str:
    """Return how a key fails: one of a hundred does."""
    return KINDS[key // 100 % len(KINDS)] if poisoned and key % 100 == POISON else ""


async def publish(running: App, orders: Service, size: tuple[int, int], rate: float, *, poisoned: bool) -> None:
    """Publish at a steady rate: a hundred keys, message by message, then the next hundred."""
    keys, each = size
    began, sent = time.monotonic(), 0
    for first in range(0, keys, 100):
        for number in range(1, each + 1):
            for key in range(first, min(first + 100, keys)):
                async with running.transaction(orders) as ctx:
                    await ctx.publish(Ordered(key=f"k{key}", number=number, kind=kind_of(key, poisoned=poisoned), sent=time.time()))
                sent += 1
                await asyncio.sleep(max(began + sent / rate - time.monotonic(), 0))


async def run(folder: Path, size: tuple[int, int], rate: float, *, poisoned: bool) -> dict[str, Any]:
    """Publish and react; return the rate that the healthy keys reached, and the process that reacts."""
    await asyncio.to_thread(folder.mkdir)
    keys, each = size
    bad = [f"k{key}" for key in range(keys) if kind_of(key, poisoned=poisoned)]
    healthy = f"key not in ({', '.join(repr(key) for key in bad)})" if bad else "1"
    mail = Mail(folder)
    running, orders = app(folder)
    await running.start(["orders"])
    try:
        await mail.until("select count(*) from sqlite_master where name = 'effect'", [(1,)])
        publishing = asyncio.create_task(publish(running, orders, size, rate, poisoned=poisoned))
        wanted = (keys - len(bad)) * each
        await mail.until(f"select count(*) from effect where {healthy}", [(wanted,)], wanted / rate)
        await publishing
        ((first, last),) = mail.query(f"select min(sent), max(at) from effect where {healthy}")
        if poisoned:
            await mail.until("select count(distinct key) from linkspan_letter where state = 'dead'", [(len(bad),)])
    except BaseException:
        mail.stop()
        raise
    finally:
        await running.aclose()
    return {"rate": wanted / (last - first), "bad": len(bad), "mail": mail}


def redrive(folder: Path) -> None:
    """Mend, and redrive everything."""
    (folder / "mended").touch()
    words = ["dead", "redrive", "proof.letters_app:target", "--service", "mail", "--all", "--rate", "500", "--why", "mended"]
    command = [sys.executable, "-m", "linkspan.cli", *words]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "LINKSPAN_DATA": str(folder)})


def wrong(mail: Mail, keys: int, each: int) -> list[str]:
    """Return what is not as promised: something lost, twice, or out of order."""
    numbers: dict[str, list[int]] = {}
    for key, number in mail.query("select key, number from effect order by position"):
        numbers.setdefault(key, []).append(number)
    right = list(range(1, each + 1))
    return [f"k{key}: {numbers.get(f'k{key}')}" for key in range(keys) if numbers.get(f"k{key}") != right]


async def prove(keys: int, each: int, rate: float) -> dict[str, Any]:
    """Run clean, run with poison, redrive, compare."""
    folder = Path(tempfile.mkdtemp(prefix="linkspan-poison-"))
    clean = await run(folder / "clean", (keys, each), rate, poisoned=False)
    clean["mail"].stop()
    poisoned = await run(folder / "poisoned", (keys, each), rate, poisoned=True)
    mail: Mail = poisoned["mail"]
    try:
        redrive(folder / "poisoned")
        await mail.until("select count(*) from linkspan_letter", [(0,)], keys)
    finally:
        mail.stop()
    violations = wrong(mail, keys, each)
    ratio = poisoned["rate"] / clean["rate"]
    if not violations:
        shutil.rmtree(folder)
    return {
        "name": "poison stops nobody else",
        "tried": f"{keys * each} messages of {keys} keys, {poisoned['bad']} of them poison, {mail.starts - 1} processes killed",
        "clean_rate": round(clean["rate"], 1),
        "poisoned_rate": round(poisoned["rate"], 1),
        "ratio": round(ratio, 3),
        "kills": mail.starts - 1,
        "violations": len(violations),
        "first": violations[:5],
        "holds": not violations and ratio >= LEAST,
    }


def main() -> int:
    """Read the options, prove, print."""
    parser = argparse.ArgumentParser(prog="proof.poison", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=5000)
    parser.add_argument("--each", type=int, default=40)
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second")
    parser.add_argument("--resume", type=Path, help="not used: a run is whole")
    parser.add_argument("--out", type=Path, help="where the row goes")
    options = parser.parse_args()
    found = asyncio.run(prove(options.keys, options.each, options.rate))
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
