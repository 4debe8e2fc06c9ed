"""`linkspan run` with a gRPC port: what it says, and a call under way when SIGTERM comes."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.integration.cli_orders import Order, Orders, PlaceOrder
from tests.integration.command_line import PATIENCE, Folder, Running, until
from tests.integration.test_health import probe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
async def test_call_under_way_finishes_after_sigterm_while_probes_say_not_ready(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "app")
    with Running(folder, LINKSPAN_GRPC="127.0.0.1:0", LINKSPAN_PROBES="127.0.0.1:0") as run:
        until(lambda: "Probes at" in run.out.read_text(), "it has said where")
        said = dict(re.findall(r"^(gRPC|Probes) at \w+://(\S+)$", run.out.read_text(), re.MULTILINE))
        assert (await probe(f"http://{said['Probes']}", "/readyz"))[0] == 200
        async with grpc.aio.insecure_channel(said["gRPC"]) as channel:
            slow = PlaceOrder(order_id="7", number=1, pause=1500)

            async def place() -> Order:
                return Order.from_binary(await channel.unary_unary(Orders.place_order.path)(slow.to_binary(), timeout=PATIENCE))

            call = asyncio.ensure_future(place())
            await asyncio.to_thread(until, lambda: folder.runs != [], "its handler runs")
            run.process.send_signal(signal.SIGTERM)
            status, found = 200, {}
            while status == 200 and not call.done():
                status, found = await probe(f"http://{said['Probes']}", "/readyz")
            assert (status, found["checks"]["app"]) == (503, "draining")
            assert (await call).order_id == "7"
        assert await asyncio.to_thread(run.process.wait, PATIENCE) == 0
    assert folder.query("orders", "select order_id from placed") == [("7",)]
