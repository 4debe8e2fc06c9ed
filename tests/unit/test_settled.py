"""`linkspan.testing.settled`: a whole app in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from linkspan import App, Code, Context, Contract, Error, Message, ServiceContract, SetupError, command, field
from linkspan.testing import settled
from tests.unit.app_shop import TABLE, Find, Orders, Place, Placed, orders_service, reacting

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.testing import Run

contract = Contract("settled.neighbour.v1")


class Charge(Message):
    """Ask for money."""

    order: str = field(1, key=True)


class Receipt(Message):
    """Say that it was paid."""

    number: str = field(1)


class Payments(ServiceContract):
    charge = command(Charge, Receipt)
    refund = command(Charge, Receipt)


def shop(handler: Callable[[Context, Placed], object] | None = None) -> App:
    async def note(ctx: Context, event: Placed) -> None:
        ctx.tx.record("insert into seen values (?)", event.order)

    return App(orders_service(), reacting("mail", handler or note, migrations=[TABLE]))  # type: ignore[arg-type]  # an async function


async def seen(run: Run) -> list[tuple[str]]:
    store = run.app.running["mail"].store
    assert store is not None
    return await store.read("select text from seen order by rowid")


@pytest.mark.parametrize("engine", ["memory", "nats"])
async def test_everything_that_a_call_sets_in_motion_is_done(engine: str) -> None:
    app = shop()

    async with settled(app, engine=engine) as run:  # type: ignore[arg-type]  # one of the two
        for number in range(20):
            await run.call(Orders.place, Place(order=str(number % 4), note="n"))
        await run.settle()

        assert len(await seen(run)) == 20
        assert len(run.sent.all(Placed)) == 20
        assert run.handled(Placed) == run.handled(Orders.place) == 20
        run.sent.none(Orders.find)
    assert not app.running  # the app itself was not touched


async def test_one_of_none_or_several_says_what_was_sent() -> None:
    async with settled(shop()) as run:
        with pytest.raises(AssertionError, match=r"sent 0 times, not once; sent in all: Sent\(\)"):
            run.sent.one(Placed)
        await run.call(Orders.place, Place(order="7", note="n"))
        await run.settle()
        assert run.sent.one(Placed).order == "7"
        with pytest.raises(AssertionError, match="was sent 1 times"):
            run.sent.none(Placed)


async def test_inline_retries_pass_and_parked_ones_wait_for_the_clock() -> None:
    tries: list[int] = []

    async def unlucky(ctx: Context, event: Placed) -> None:
        tries.append(ctx.attempt)
        if len(tries) <= 3:
            raise Error(Code.UNAVAILABLE, "Not yet: try again.")
        ctx.tx.record("insert into seen values (?)", event.order)

    async with settled(shop(unlucky)) as run:
        await run.publish(Placed(order="7", note="n"))
        await run.settle()
        assert (len(tries), await seen(run)) == (3, [])
        assert [letter.key for letter in await run.waiting()] == ["7"]

        await run.advance(15)
        assert await seen(run) == [("7",)]
        assert await run.waiting() == []


async def test_dead_letter_that_nobody_looked_at_fails_the_test() -> None:
    async def broken(_ctx: Context, _event: Placed) -> None:
        raise Error(Code.FAILED_PRECONDITION, "Never.")

    with pytest.raises(AssertionError, match=r"1 messages failed for good, first 'app.shop.v1.Placed': .*Never"):
        async with settled(shop(broken)) as run:
            await run.publish(Placed(order="7", note="n"))

    async with settled(shop(broken)) as run:
        await run.publish(Placed(order="7", note="n"))
        await run.settle()
        assert [letter.type for letter in await run.dead()] == ["app.shop.v1.Placed"]


async def test_handlers_fail_on_demand() -> None:
    async with settled(shop()) as run:
        run.fail(Orders.find, Error(Code.NOT_FOUND, "Nothing there."))
        with pytest.raises(Error, match="Nothing there"):
            await run.call(Orders.find, Find(order="7"))
        run.fail(Orders.find, None)
        assert (await run.call(Orders.find, Find(order="7"))).order == "7"


async def test_neighbours_are_stubbed_on_every_path() -> None:
    async def pay(ctx: Context, event: Placed) -> None:
        receipt = await ctx.call(Payments.charge, Charge(order=event.order))
        ctx.tx.record("insert into seen values (?)", receipt.number)
        await ctx.send(Payments.charge, Charge(order=event.order))

    async def charge(_ctx: Context, request: Charge) -> Receipt:
        return Receipt(number=f"r{request.order}")

    async with settled(shop(pay), stubs={Payments.charge: charge}) as run:
        await run.publish(Placed(order="7", note="n"))
        await run.settle()

        assert await seen(run) == [("r7",)]
        assert run.sent.one(Payments.charge).order == "7"
        assert run.sent.one(Charge).order == "7"
        assert run.handled(Payments.charge) == 2
        with pytest.raises(Error, match="has no stub in this test"):
            await run.call(Payments.refund, Charge(order="7"))


async def test_wrong_uses_are_told() -> None:
    with pytest.raises(SetupError, match="take memory or nats"):
        async with settled(shop(), engine="kafka"):  # type: ignore[arg-type]  # the mistake
            pass
    async with settled(shop()) as run:
        with pytest.raises(SetupError, match="no service 'none' in this app: name one of orders, mail"):
            await run.publish(Placed(order="7", note="n"), by="none")
        with pytest.raises(SetupError, match="neither a message class nor an operation"):
            run.handled(int)
    with pytest.raises(SetupError, match="cannot be stubbed"):
        async with settled(shop(), stubs={command(Charge, Receipt): None}):  # type: ignore[dict-item]  # not reached
            pass


async def test_work_without_an_end_is_named() -> None:
    """A message that nobody acknowledges: the consumer took it, and its handler never returns."""
    import asyncio

    from linkspan.testing import run as module

    stuck = asyncio.Event()

    async def wait(_ctx: Context, _event: Placed) -> None:
        await stuck.wait()

    before = module.PATIENCE
    module.PATIENCE = 0.2
    try:
        async with settled(shop(wait)) as run:
            await run.publish(Placed(order="7", note="n"))
            with pytest.raises(AssertionError, match="did not settle: 1 for 'mail', 1 in hand"):
                await run.settle()
            stuck.set()
            await run.settle()
    finally:
        module.PATIENCE = before
