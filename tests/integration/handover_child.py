"""A process that publishes in its own SQLAlchemy transactions and dies where it is told: `handover_child.py FOLDER POINT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from linkspan import App, Context, Service
from linkspan.runtime import system
from linkspan.sqlalchemy import TABLE, Outbox
from tests.unit.app_shop import Placed, contract

FOLDER, POINT = Path(sys.argv[1]), sys.argv[2]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def reached(point: str) -> None:
    if point == POINT:
        die()


async def note(ctx: Context, event: Placed) -> None:
    ctx.tx.record("insert into handled values (?, ?, ?)", event.order, event.note, ctx.id)


async def main() -> None:
    engine = sa.create_engine(f"sqlite:///{FOLDER}/theirs.db")
    TABLE.metadata.create_all(engine)
    outbox = Outbox(engine)
    orders = Service("orders", owns=[contract], outbox=outbox)
    mail = Service("mail", migrations=["create table handled (key text, note text, id text)"])
    mail.on(Placed)(note)
    app = App(orders, mail, data=FOLDER, http="127.0.0.1:0", runtime=system(reached))
    if POINT == "commit":  # dies before anything is moved
        write(engine, outbox)
        die()
    async with app:
        if POINT != "none":
            write(engine, outbox)
        async with asyncio.timeout(30):
            while True:
                rows = await app.running["mail"].store.read("select key, note, id from handled order by rowid")  # type: ignore[union-attr]  # it runs
                if len(rows) >= 20:
                    break
                await asyncio.sleep(0.02)
        for row in rows:
            print(*row)


def write(engine: sa.Engine, outbox: Outbox) -> None:
    for number in range(10):
        with Session(engine) as session, session.begin():
            for key in ("a", "b"):
                outbox.publish(session, Placed(order=key, note=str(number)))


asyncio.run(main())
