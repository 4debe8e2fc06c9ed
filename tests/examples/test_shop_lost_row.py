"""A message deleted by hand from an outbox, before it was sent, is found by the reconciliation; a crash alone is not a loss.

The whole shop runs on embedded NATS in a child process, which dies just before the n-th message goes out: it is committed in
an outbox, and nowhere else. Then the row is left alone or deleted, and the shop runs on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from examples.shop.app import app as shop
from examples.shop.demo.feed import Customers
from examples.shop.order_book import OrderBook, read_orders
from examples.shop.orders_csv import COLUMNS
from examples.shop.reconcile import SERVICES, Reconciliation, reconcile
from examples.shop.reconcile_messages import read_traffic
from linkspan import App
from linkspan.runtime import system
from linkspan.testing.crash import CrashPoint, crash_at

ORDER = "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"
SENDERS = {1: "storefront", 4: "orders", 7: "shipping"}  # AcceptOrder, Charge, ParcelShipped


def book_in(folder: Path) -> OrderBook:
    path = folder / "orders.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{ORDER}\n")
    return read_orders(path)


async def no_pause(placed: int) -> None:
    assert placed > 0


async def run_until_it_dies(folder: Path, message: int) -> None:
    runtime = replace(system(), reached=crash_at(CrashPoint("relay.publish.before", message)))
    async with App(*shop.services, data=folder, http="127.0.0.1:0", runtime=runtime) as app, app.client("customer") as client:
        await Customers(client).place(book_in(folder), no_pause)
        await asyncio.Event().wait()


async def run_to_rest(folder: Path) -> Reconciliation:
    """Run on; place the order again, in case its customer had no answer; wait until it is reconciled or nothing moves any more."""
    book, databases = book_in(folder), {name: folder / f"{name}.db" for name in SERVICES}
    async with App(*shop.services, data=folder, http="127.0.0.1:0") as app, app.client("customer") as client:
        await Customers(client).place(book, no_pause)
        before, calm = None, 0
        while calm < 15 and not reconcile(book, folder).reconciled:
            await asyncio.sleep(0.1)
            traffic = read_traffic(databases)
            calm = calm + 1 if traffic == before and not sum(traffic.waiting.values()) else 0
            before = traffic
    return reconcile(book, folder)


def crash_before(message: int, folder: Path) -> None:
    """Let a child die there, and check that the message lies in its sender's outbox and was not sent."""
    child = subprocess.run([sys.executable, "-m", "tests.examples.test_shop_lost_row", str(folder), str(message)], timeout=50, check=False)
    assert child.returncode != 0
    assert read_traffic({name: folder / f"{name}.db" for name in SERVICES}).waiting[SENDERS[message]] == 1


@pytest.mark.parametrize("message", SENDERS)
async def test_a_crash_before_a_message_is_sent_loses_nothing(tmp_path: Path, message: int) -> None:
    crash_before(message, tmp_path)

    result = await run_to_rest(tmp_path)

    assert result.differences == []
    assert (result.settled, result.lost, result.double_effects) == (1, 0, 0)


@pytest.mark.parametrize("message", SENDERS)
async def test_a_row_deleted_from_an_outbox_by_hand_is_found(tmp_path: Path, message: int) -> None:
    crash_before(message, tmp_path)
    with closing(sqlite3.connect(tmp_path / f"{SENDERS[message]}.db", isolation_level=None)) as database:
        assert database.execute("delete from linkspan_outbox").rowcount == 1

    result = await run_to_rest(tmp_path)

    assert not result.reconciled
    assert result.lost >= 1


if __name__ == "__main__":
    asyncio.run(run_until_it_dies(Path(sys.argv[1]), int(sys.argv[2])))
