"""Which promises are tried, by which program, and how long. A program writes its row to `--out` and goes on with `--resume`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ROWS", "Row"]

RESERVE = 8.0
"""Minutes before the end of its shard from which on a program begins nothing new."""


@dataclass(frozen=True, slots=True)
class Row:
    """A promise and the program that tries to break it, with the arguments of its short and its long form."""

    key: str
    promise: str
    program: str
    short: Sequence[str] = ()
    long: Sequence[str] = ()
    sharded: bool = False
    """Whether the program takes `--minutes`, ends by itself before they are over, and goes on when it is run again."""

    def command(self, form: str, resume: Path, out: Path, minutes: float) -> list[str]:
        """Return what to run."""
        arguments = [*(self.short if form == "short" else self.long)]
        if self.sharded:
            arguments += ["--minutes", f"{max(minutes - RESERVE, minutes / 2):.1f}"]
        return [sys.executable, "-m", self.program, *arguments, "--resume", str(resume), "--out", str(out)]


_ORDERS = os.environ.get("LINKSPAN_ORDERS_CSV", "")

ROWS: tuple[Row, ...] = (
    Row(
        "kills",
        "acknowledged events survive kills of services, relays and brokers: SQLite + NATS, PostgreSQL + 3 NATS, PostgreSQL + 3 Kafka",
        "proof.kills",
        ("--kills", "50"),
        ("--kills", "1000"),
        sharded=True,
    ),
    Row(
        "crash",
        "state and event are one: nothing lost, nothing twice, order per key, a crash at every commit, publish and ack",
        "tests.crash.proof",
        ("--seeds", "0"),
        ("--seeds", "20", "--pairs", "20"),
        sharded=True,
    ),
    Row(
        "crash-postgres",
        "the same on PostgreSQL, with three NATS servers and with three Kafka brokers",
        "tests.crash.proof",
        ("--seeds", "0", "--nodes", "3", "--topology", "postgres-nats", "postgres-kafka", "--every", "12"),
        ("--seeds", "1", "--nodes", "3", "--topology", "postgres-nats", "postgres-kafka"),
        sharded=True,
    ),
    Row(
        "order",
        "order per key: 64 writers, 1,000 keys, 3 relays, kills and takeovers, on PostgreSQL and NATS",
        "proof.order",
        ("--events", "100000", "--shard", "50000"),
        ("--events", "5000000", "--shard", "100000"),
        sharded=True,
    ),
    Row(
        "effects",
        "an effect happens once: 30 % duplicates, forgotten acknowledgements, redrive after a week of simulated time",
        "proof.effects",
        ("--events", "100000", "--shard", "50000"),
        ("--events", "5000000", "--shard", "100000"),
        sharded=True,
    ),
    Row(
        "power",
        "a power cut loses nothing acknowledged and leaves no event without its row: SQLite and NATS on a disk that forgets",
        "tests.power.proof",
        ("--cuts", "5"),
        ("--cuts", "100"),
    ),
    Row(
        "sync",
        "every acknowledgement of NATS comes after the sync of its message, by its system calls",
        "tests.power.proof",
        ("--traced", "200"),
        ("--traced", "5000"),
    ),
    Row(
        "simulation",
        "found bugs stay found: whole systems in simulated time, one seed one history",
        "proof.simulation",
        ("--seeds", "200"),
        ("--seeds", "1000000", "--minutes", "60"),
    ),
    Row(
        "poison",
        "poison stops nobody else: a key in a hundred fails or ends the process, the others keep 95 % of their rate, and all are in order",
        "proof.poison",
        ("--keys", "400", "--each", "10"),
        ("--keys", "5000", "--each", "40"),
    ),
    Row(
        "redrive",
        "redrive cannot cause an outage: it stops within 5 s where it fails, and live messages wait 10 % longer at most",
        "proof.redrive",
        ("--count", "2000", "--rate", "100", "--seconds", "10"),
        ("--count", "20000", "--rate", "50", "--seconds", "60"),
    ),
    Row(
        "contract",
        "brokers and stores keep one contract, through restarts, with and without the hot path",
        "proof.suite",
        ("tests/contract",),
        ("tests/contract",),
    ),
    Row(
        "mutants",
        "the checker itself works: linkspan broken on purpose, in each file of the durable path, is found out",
        "proof.mutants",
    ),
    Row("stories", "broker killed, store away, disk full, duplicates, poison", "proof.suite", ("tests/crash",), ("tests/crash",)),
    Row(
        "seeded",
        "seeded orders reconcile to the cent and the piece",
        "proof.shop",
        ("--seed", "11", "--count", "500"),
        ("--seed", "11", "--count", "2000"),
    ),
    Row("orders", "real orders reconcile to the cent and the piece", "proof.shop", ("--orders", _ORDERS), ("--orders", _ORDERS)),
)
