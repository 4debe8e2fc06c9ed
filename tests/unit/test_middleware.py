"""One shape of middleware on every path and side: in its order, once a request, and replaceable."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Context, Error
from linkspan.handler import compose
from linkspan.middleware import Deadline, Tracing
from linkspan.path import Path, Side
from tests.unit.app_shop import Find, Found, Orders, Place, Placed, app_of, orders_service, reacting
from tests.unit.durable import until

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from linkspan import Handler


class Noting:
    """Writes down where it runs, before and after."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.seen: list[tuple[str, Path, Side]] = []
        self.order: list[str] = []

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        self.seen.append((ctx.operation.rpartition(".")[2], ctx.path, ctx.side))
        self.order.append(f"{self.name} in")
        answer = await call_next(ctx, request)
        self.order.append(f"{self.name} out")
        return answer


async def nothing(ctx: Context, event: Placed) -> None:
    """Do nothing."""


async def test_it_runs_on_direct_and_durable_paths_and_on_the_client(tmp_path: FilePath) -> None:
    noting = Noting()

    async def thank(ctx: Context, event: Placed) -> None:
        await ctx.call(Orders.find, Find(order=event.order))

    app = app_of(tmp_path, orders_service(), reacting("mail", thank), middleware=[noting])
    async with app, app.client() as client:
        await client.call(Orders.place, Place(order="7"))
        await client.send(Orders.place, Place(order="7"))
        await until(lambda: len(noting.seen) == 9, "two orders and two thanks with a call each")

    calls = [("Find", Path.DIRECT, Side.CLIENT), ("Find", Path.DIRECT, Side.SERVER)]
    assert noting.seen[:2] == [("Place", Path.DIRECT, Side.CLIENT), ("Place", Path.DIRECT, Side.SERVER)]
    assert sorted(map(str, noting.seen[2:])) == sorted(
        map(str, [("Place", Path.DURABLE, Side.SERVER), *[("Placed", Path.DURABLE, Side.SERVER), *calls] * 2])
    )


async def test_app_comes_before_service_and_each_in_order(tmp_path: FilePath) -> None:
    order: list[str] = []
    layers = [Noting("a"), Noting("b"), Noting("service")]
    for layer in layers:
        layer.order = order
    app = app_of(tmp_path, orders_service(middleware=layers[2:]), middleware=layers[:2])
    async with app, app.client() as client:
        await client.call(Orders.find, Find())

    client_side, server_side = ["a in", "b in"], ["a in", "b in", "service in", "service out", "b out", "a out"]
    assert order == [*client_side, *server_side, "b out", "a out"]


async def test_middleware_may_answer_and_refuse_by_itself(tmp_path: FilePath) -> None:
    async def gate(ctx: Context, request: Any, call_next: Handler, /) -> Any:
        if ctx.side is Side.CLIENT:
            return await call_next(ctx, request)
        if request.order == "cached":
            return Found(order="cached", text="from the gate")
        raise Error(Code.PERMISSION_DENIED, "Not for you: ask for access.")

    async with app_of(tmp_path, orders_service(), middleware=[gate]) as app, app.client() as client:
        assert await client.call(Orders.find, Find(order="cached")) == Found(order="cached", text="from the gate")
        with pytest.raises(Error, match="Not for you") as caught:
            await client.call(Orders.find, Find(order="7"))
    assert caught.value.code is Code.PERMISSION_DENIED


async def test_default_middleware_can_be_replaced(tmp_path: FilePath) -> None:
    """Without `Deadline` in the list, nobody refuses what is over."""
    left: list[float] = []

    async def late(ctx: Context, request: Any, call_next: Handler, /) -> Any:
        if ctx.side is Side.SERVER:
            ctx.deadline = ctx.home.runtime.clock.monotonic()
        return await call_next(ctx, request)

    async def find(ctx: Context, request: Find) -> Found:
        left.append(ctx.time_left)
        return Found()

    async with app_of(tmp_path, orders_service(find=find), middleware=[late]) as app, app.client() as client:
        await client.call(Orders.find, Find())

    assert left[0] <= 0.0


async def test_what_is_over_is_refused_before_the_handler(tmp_path: FilePath) -> None:
    ran: list[str] = []

    async def late(ctx: Context, request: Any, call_next: Handler, /) -> Any:
        if ctx.side is Side.SERVER:
            ctx.deadline = ctx.home.runtime.clock.monotonic()
        return await call_next(ctx, request)

    async def find(ctx: Context, request: Find) -> Found:
        ran.append(request.order)
        return Found()

    async with app_of(tmp_path, orders_service(find=find), middleware=[late, Deadline()]) as app, app.client() as client:
        with pytest.raises(Error, match="passed before it began: give it more time") as caught:
            await client.call(Orders.find, Find())
    assert (caught.value.code, ran) == (Code.DEADLINE_EXCEEDED, [])


async def test_steps_that_only_look_beforehand_keep_their_place() -> None:
    """`compose` calls neighbours with `before` in a row; a layer between them stays between them."""
    order: list[str] = []

    class Looking:
        def __init__(self, name: str) -> None:
            self.before = lambda _ctx: order.append(name)

        async def __call__(self, ctx: Any, request: Any, call_next: Handler, /) -> Any:
            raise AssertionError("not called where there is a `before`")

    async def handler(_ctx: Any, request: str) -> str:
        order.append("handler")
        return request

    between = Noting("between")
    between.order = order
    chain = compose([Looking("1"), Looking("2"), between, Looking("3")], handler)

    assert await chain(_Nowhere(), "request") == "request"
    assert order == ["1", "2", "between in", "3", "handler", "between out"]


class _Nowhere:
    operation, path, side = "x", Path.DIRECT, Side.SERVER


def test_tracing_looks_for_an_sdk_when_the_app_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    tracing = Tracing()
    assert tracing.before is not None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", ModuleType("opentelemetry.sdk.trace"))
    assert tracing.before is None


async def test_subclass_with_its_own_call_is_not_taken_for_its_parent() -> None:
    seen: list[str] = []

    class Loud(Deadline):
        async def __call__(self, ctx: Any, request: Any, call_next: Any, /) -> Any:
            seen.append("loud")
            return await super().__call__(ctx, request, call_next)

    async def handler(_ctx: Any, request: Any) -> Any:
        return request

    clock = SimpleNamespace(monotonic=lambda: 0.0)
    ctx = SimpleNamespace(deadline=1.0, home=SimpleNamespace(runtime=SimpleNamespace(clock=clock)), operation="x")

    assert await compose([Loud()], handler)(ctx, 7) == 7
    assert await compose([Deadline()], handler)(ctx, 7) == 7
    assert seen == ["loud"]
