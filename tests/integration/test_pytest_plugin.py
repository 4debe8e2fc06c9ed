"""The pytest plugin, as a user's project has it: nothing but pytest beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """
from linkspan import App, Context, Contract, Event, Message, Service, ServiceContract, command, field

contract = Contract("plugin.v1")


class Place(Message):
    order: str = field(1, key=True)


class Placed(Event):
    order: str = field(1, key=True)


class Orders(ServiceContract):
    place = command(Place, Place)


orders, mail = Service("orders", Orders), Service("mail")


@orders.handles(Orders.place)
async def place(ctx: Context, request: Place) -> Place:
    await ctx.publish(Placed(order=request.order))
    return request


@mail.on(Placed)
async def thank(ctx: Context, event: Placed) -> None:
    if event.order == "13":
        raise ValueError("unlucky")


app = App(orders, mail)


async def test_order_is_placed(settled, request) -> None:
    async with settled(app) as run:
        await run.call(Orders.place, Place(order="7"))
        await run.settle()
        assert run.sent.one(Placed).order == "7"
        print(type(run._broker._broker).__name__)


async def test_failure_is_seen(settled) -> None:
    async with settled(app) as run:
        await run.call(Orders.place, Place(order="13"))
        await run.advance(120)
"""


@pytest.mark.parametrize(("chosen", "broker"), [((), "MemoryBroker"), (("--linkspan-broker", "nats"), "NatsBroker")])
def test_users_tests_run_on_the_chosen_broker(tmp_path: Path, chosen: tuple[str, ...], broker: str) -> None:
    (tmp_path / "test_orders.py").write_text(PROJECT)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *chosen, "test_orders.py"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "failed for good, first 'plugin.v1.Placed': The handler raised ValueError" in done.stdout
    assert broker in done.stdout
