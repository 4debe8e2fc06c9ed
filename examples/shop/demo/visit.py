"""`--serve`: the shop stays open, with lines to paste."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from examples.shop.demo.show import say
from linkspan.brokers.embedded import cli_line

if TYPE_CHECKING:
    from examples.shop.demo.processes import Fleet
    from linkspan.brokers.embedded import EmbeddedServer

__all__ = ["lines", "stay_open"]


def lines(services: Fleet, server: EmbeddedServer) -> list[str]:
    """Return command lines that work as they stand while the shop is open."""
    folder, linkspan = shlex.quote(str(services["orders"].folder)), shlex.quote(os.path.relpath(Path(sys.executable).with_name("linkspan")))
    front, orders = services["storefront"].address, services["orders"].address
    post = "curl -sS -H 'content-type: application/json' -d"
    order = '{"orderId":"900001","customer":"12346","lines":[{"sku":"85123A","pieces":6,"cents":"255"}]}'
    goods = '{"refundId":"C900002-900001","orderId":"900001","lines":[{"sku":"85123A","pieces":1,"cents":"255"}]}'
    return [
        f"{post} '{order}' {front}/shop.storefront.v1.Storefront/PlaceOrder",
        f"""{post} '{{"orderId":"900001"}}' {front}/shop.storefront.v1.Storefront/Track""",
        f"{post} '{goods}' {front}/shop.storefront.v1.Storefront/ReturnGoods",
        f"""{post} '{{"orderId":"900001"}}' {orders}/shop.orders.v1.Orders/GetOrder""",
        *cli_line(server),
        f"LINKSPAN_DATA={folder} {linkspan} dead list examples.shop.app:app --service payments",
        f"LINKSPAN_DATA={folder} {linkspan} outbox status examples.shop.app:app",
    ]


async def stay_open(services: Fleet, server: EmbeddedServer) -> None:
    """Print the lines and wait for Ctrl-C or SIGTERM."""
    say("The shop is open; Ctrl-C closes it. Try")
    for line in lines(services, server):
        print(f"    {line}")
    print(flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
