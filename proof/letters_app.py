"""Two services for the proofs about dead letters: `orders` publishes, `mail` reacts, and what it needs is broken until it is mended.

The kind of an order says how its first message fails: `final`, `transient`, `killer` (the process ends), or `` for not at all.
`python -m proof.letters_app FOLDER SECONDS` runs `mail` alone until it is told to stop, and notes when it began.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop

from linkspan import App, Code, Context, Contract, Error, Event, Limits, Service, field
from linkspan.telemetry.logs import set_up

contract = Contract("proof.letters.v1")

EFFECTS = "create table effect (position integer primary key, key text, number integer, sent real, at real, pid integer)"
PATIENCE = Limits(inline=2, backoff=0.01, parked=(0.2, 0.4))


class Ordered(Event):
    """An order, which fails as its kind says until what it needs is mended."""

    key: str = field(1, key=True)
    number: int = field(2)
    kind: str = field(3)
    sent: float = field(4)


def services(folder: Path) -> tuple[Service, Service]:
    """Declare both; the file `mended` in the folder says that what was broken works again."""
    mended = folder / "mended"
    orders = Service("orders", owns=[contract])
    mail = Service("mail", migrations=[EFFECTS], limits=PATIENCE)

    @mail.on(Ordered)
    async def react(ctx: Context, event: Ordered) -> None:
        if event.kind and event.number == 1 and not mended.exists():
            fail(event.kind)
        row = (event.key, event.number, event.sent, time.time(), os.getpid())
        ctx.tx.record("insert into effect (key, number, sent, at, pid) values (?, ?, ?, ?, ?)", *row)

    return orders, mail


def fail(kind: str) -> None:
    """Fail as the kind says."""
    if kind == "killer":
        os._exit(137)
    if kind == "transient":
        raise Error(Code.UNAVAILABLE, "The dependency is away.")
    raise Error.refused("The dependency refuses.")


def app(folder: Path) -> tuple[App, Service]:
    """Return the app of a folder, and the service that publishes."""
    orders, mail = services(folder)
    return App(orders, mail, http="127.0.0.1:0", data=folder), orders


target = app(Path(os.environ.get("LINKSPAN_DATA", ".linkspan")))[0]
"""For the command line."""


async def main(folder: Path) -> None:
    """Run `mail`."""
    running, _ = app(folder)
    await running.run(["mail"])


if __name__ == "__main__":
    set_up("off", "error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1])))
