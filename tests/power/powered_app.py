"""A service whose process runs on the disk that forgets: each order is a row and an event in one transaction.

python -m tests.power.powered_app URL DATABASE HISTORY FIRST LANES SYNCHRONOUS     write until killed
python -m tests.power.powered_app URL DATABASE drain                               send what waits, then end
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from linkspan import App, Contract, Event, Service, field
from linkspan.testing.history import Entry, History, Kind

if TYPE_CHECKING:
    from linkspan.stores.sqlite import SqliteStore

TOPIC = "power.orders.v1.events"
contract = Contract("power.orders.v1")


class OrderPlaced(Event):
    key: str = field(1, key=True)
    id: str = field(2)
    number: int = field(3)


TABLE = "create table placed (position integer primary key, id text not null, key text not null, number integer not null)"


def made(url: str, database: str) -> tuple[App, Service]:
    orders = Service("orders", owns=[OrderPlaced], store=f"sqlite:///{database}", migrations=[TABLE])
    return App(orders, broker=url, data=Path(database).parent, http="127.0.0.1:0", durability="any"), orders


async def write(url: str, database: str, history: History, first: int, lanes: int, synchronous: str) -> None:
    """Place orders on `lanes` keys at once, without end; note each before it begins and when it was acknowledged."""
    app, orders = made(url, database)
    async with app:
        store = cast("SqliteStore", next(iter(app.stores.values())))
        if synchronous != "full":  # the negative control: what the store itself would never do
            connection: Any = store._writer.connection

            def lower() -> None:
                connection.set_authorizer(None)
                connection.execute(f"pragma synchronous = {synchronous}")

            await store._writer.call(lower)

        async def lane(name: int) -> None:
            number = first
            while True:
                id_ = f"{name}-{number}"
                history.add(Entry(Kind.INVOKED, id_, str(name), number))
                async with app.transaction(orders) as ctx:
                    ctx.tx.record("insert into placed (id, key, number) values (?, ?, ?)", id_, str(name), number)
                    await ctx.publish(OrderPlaced(key=str(name), id=id_, number=number))
                history.add(Entry(Kind.ACKNOWLEDGED, id_, str(name), number))
                number += 1

        await asyncio.gather(*(lane(name) for name in range(lanes)))


async def drain(url: str, database: str) -> None:
    """Run until nothing waits in the outbox."""
    app, _ = made(url, database)
    async with app:
        (store,) = app.stores.values()
        while (await store.depth())[0]:  # noqa: ASYNC110 - a depth of zero is no event
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[3] == "drain":
        asyncio.run(drain(sys.argv[1], sys.argv[2]))
    else:
        asyncio.run(write(sys.argv[1], sys.argv[2], History(Path(sys.argv[3])), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]))
