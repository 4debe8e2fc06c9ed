"""What travels with a request through every hop: deadline, trace, correlation, idempotency key; and the ids derived from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Context, Error
from linkspan.context import derived_id
from tests.unit.app_shop import TABLE, Find, Found, Orders, Place, Placed, app_of, orders_service, reacting
from tests.unit.durable import until

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import App, Service

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def facts(ctx: Context) -> dict[str, Any]:
    names = ("service", "operation", "caller", "key", "id", "correlation", "trace", "attempt", "path", "side")
    return {name: getattr(ctx, name) for name in names} | {"left": ctx.time_left}


async def test_trace_and_correlation_go_from_call_to_event_to_handler_to_call(tmp_path: Path) -> None:
    seen: dict[str, dict[str, Any]] = {}

    async def place(ctx: Context, request: Place) -> Found:
        seen["place"] = facts(ctx)
        await ctx.publish(Placed(order=request.order))
        return Found(order=request.order)

    async def find(ctx: Context, request: Find) -> Found:
        seen["find"] = facts(ctx)
        return Found(order=request.order)

    async def thank(ctx: Context, event: Placed) -> None:
        seen["thank"] = facts(ctx)
        await ctx.call(Orders.find, Find(order=event.order))

    async with app_of(tmp_path, orders_service(place=place, find=find), reacting("mail", thank)) as app, app.client("web") as client:
        await client.call(Orders.place, Place(order="7"), key="key-1")
        await until(lambda: "find" in seen, "the handler has called back")

    traces = [seen[step]["trace"] for step in ("place", "thank", "find")]
    assert len({trace[3:35] for trace in traces}) == 1
    assert len({trace[36:52] for trace in traces}) == 3
    assert {each["correlation"] for each in seen.values()} == {"key-1"}
    assert [seen[step]["caller"] for step in ("place", "thank", "find")] == ["web", "/orders", "mail"]
    assert seen["place"]["key"] == "key-1"
    assert seen["thank"]["id"] == derived_id("key-1", "orders web app.shop.v1.Orders.Place app.shop.v1.Placed 7", 1)
    assert seen["find"]["key"] == derived_id(seen["thank"]["id"], "mail /orders app.shop.v1.Placed", 1)


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (TRACE, True),
        ("", False),
        (TRACE.replace("0af7", "0AF7"), False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"ff{TRACE[2:]}", False),
        (f"{TRACE}-more", False),
        ("x" * 35 + "-" + "y" * 16 + "-zz", False),
    ],
)
async def test_only_a_wellformed_trace_is_taken_over(header: str, kept: bool, tmp_path: Path) -> None:
    found: list[str] = []

    async def find(ctx: Context, request: Find) -> Found:
        found.append(ctx.trace)
        return Found()

    from linkspan.transport.connect import ConnectChannel

    async with app_of(tmp_path, orders_service(find=find)) as app:
        channel = ConnectChannel(app.address, runtime=app.runtime)
        await channel.unary(Orders.find, Find(), headers={"traceparent": header} if header else {}, timeout=5.0)
        await channel.aclose()

    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", found[0])
    assert (found[0][:36] == header[:36]) is kept
    assert found[0] != header


async def test_deadline_is_inherited_and_never_grows(tmp_path: Path) -> None:
    left: list[float] = []

    async def find(ctx: Context, request: Find) -> Found:
        left.append(ctx.time_left)
        return Found()

    async def place(ctx: Context, request: Place) -> Found:
        left.append(ctx.time_left)
        await ctx.call(Orders.find, Find(), timeout=60.0)
        await ctx.call(Orders.find, Find(), timeout=0.5)
        return Found()

    async with app_of(tmp_path, orders_service(place=place, find=find)) as app, app.client() as client:
        await client.call(Orders.place, Place(order="7"), timeout=3.0)
        with pytest.raises(Error) as caught:
            await client.call(Orders.place, Place(order="7"), timeout=0.0)

    assert caught.value.code is Code.DEADLINE_EXCEEDED
    own, inherited, given = left
    assert 0 < inherited <= own + 0.002 <= 3.002  # whole milliseconds travel
    assert 0 < given <= 0.5


async def test_a_retried_handler_publishes_and_calls_with_the_same_ids(tmp_path: Path) -> None:
    """The first run fails after it asked for its ids; whoever saw them must see the same ones again."""
    keys: list[str] = []
    runs: list[int] = []

    async def find(ctx: Context, request: Find) -> Found:
        keys.append(ctx.key)
        return Found()

    async def thank(ctx: Context, event: Placed) -> None:
        runs.append(ctx.attempt)
        await ctx.call(Orders.find, Find(order=event.order))
        await ctx.send(Orders.place, Place(order=event.order))
        if ctx.attempt < 3:
            raise Error(Code.UNAVAILABLE, "Not yet: try again.")

    async def place(ctx: Context, request: Place) -> Found:
        keys.append(ctx.key)
        return Found()

    async with app_of(tmp_path, orders_service(place=place, find=find), reacting("mail", thank)) as app, app.client(owns="*") as client:
        await client.publish(Placed(order="7"))
        await until(lambda: len(keys) == 4, "the command has come")

    assert runs == [1, 2, 3]
    assert len(set(keys)) == 2
    assert all(UUID7.fullmatch(key) for key in keys)


async def test_two_services_that_react_to_one_event_do_not_get_the_same_ids(tmp_path: Path) -> None:
    """A broker takes equal ids for duplicates, and would drop the second."""
    placed: list[str] = []

    async def place(ctx: Context, request: Place) -> Found:
        placed.append(ctx.caller)
        return Found()

    async def ask(ctx: Context, event: Placed) -> None:
        await ctx.send(Orders.place, Place(order=event.order))

    services = orders_service(place=place), reacting("mail", ask), reacting("stock", ask)
    async with app_of(tmp_path, *services) as app, app.client(owns="*") as client:
        await client.publish(Placed(order="7"))
        await until(lambda: len(placed) == 2, "both commands have come")

    assert sorted(placed) == ["/mail", "/stock"]


async def test_two_callers_may_use_one_key(tmp_path: Path) -> None:
    orders: list[str] = []

    async def thank(ctx: Context, event: Placed) -> None:
        orders.append(event.order)

    async with app_of(tmp_path, orders_service(), reacting("mail", thank)) as app, app.client("a") as first, app.client("b") as second:
        await first.call(Orders.place, Place(order="1"), key="1")
        await second.call(Orders.place, Place(order="2"), key="1")
        await until(lambda: len(orders) == 2, "both events have come")
    assert sorted(orders) == ["1", "2"]


def test_derived_ids_differ_by_each_part_and_sort_by_time() -> None:
    base = "01890a5d-ac96-774b-bcce-b302099a8057"
    ids = {derived_id(*parts) for parts in [(base, "a", 1), (base, "a", 2), (base, "b", 1), ("order-7", "a", 1), ("order-8", "a", 1)]}

    assert len(ids) == 5
    assert all(UUID7.fullmatch(each) for each in ids)
    assert derived_id(base, "a", 1)[:13] == base[:13]


async def refusal_of(place: Any, tmp_path: Path) -> Error:
    async with app_of(tmp_path, orders_service(place=place, migrations=[TABLE])) as app, app.client() as client:
        with pytest.raises(Error) as caught:
            await client.call(Orders.place, Place(order="7"))
    return caught.value


async def test_call_after_the_first_write_is_refused(tmp_path: Path) -> None:
    async def place(ctx: Context, request: Place) -> Found:
        ctx.tx.record("insert into seen values ('x')")
        return await ctx.call(Orders.find, Find())

    error = await refusal_of(place, tmp_path)
    assert error.code is Code.FAILED_PRECONDITION
    assert "after the first statement of a transaction: call first, or use send" in error.message


@pytest.mark.parametrize("verb", ["send", "publish", "record"])
async def test_query_changes_nothing(verb: str, tmp_path: Path) -> None:
    async def find(ctx: Context, request: Find) -> Found:
        if verb == "send":
            await ctx.send(Orders.place, Place(order="7"))
        elif verb == "publish":
            await ctx.publish(Placed(order="7"))
        else:
            ctx.tx.record("delete from seen")
        return Found()

    async with app_of(tmp_path, orders_service(find=find)) as app, app.client() as client:
        with pytest.raises(Error, match=f"Cannot {verb} in a query, which changes nothing"):
            await client.call(Orders.find, Find())


async def forgotten(app: App, service: Service) -> None:
    async with app.transaction(service) as ctx:
        await ctx.tx.execute("insert into seen values ('forgotten')")
        raise RuntimeError("no")


async def test_transaction_commits_at_its_end_or_not_at_all(tmp_path: Path) -> None:
    service = orders_service(migrations=[TABLE])
    async with app_of(tmp_path, service) as app:
        async with app.transaction(service) as ctx:
            ctx.tx.record("insert into seen values ('kept')")
        with pytest.raises(RuntimeError, match="no"):
            await forgotten(app, service)
        async with app.transaction(service) as ctx:
            assert await ctx.tx.execute("select text from seen") == [("kept",)]


async def test_flow_that_begins_in_a_transaction_is_named_after_its_first_message(tmp_path: Path) -> None:
    service = orders_service(migrations=[TABLE])
    seen: list[str] = []

    async def note(ctx: Context, _event: Placed) -> None:
        seen.append(ctx.correlation)

    async with app_of(tmp_path, service, reacting("ledger", note)) as app:
        async with app.transaction(service) as ctx:
            await ctx.publish(Placed(order="1"))
            await ctx.publish(Placed(order="2"))
            first, second = ctx.tx.unit.messages
        await until(lambda: len(seen) == 2, "both reactions")
    assert first.id == ctx.id != second.id
    assert b"correlationid" not in first.headers
    assert b"causationid" not in first.headers + second.headers
    assert f"ce-correlationid: {first.id}\r\n".encode() in second.headers
    assert set(seen) == {first.id}
