"""A REST service of others (FastAPI) called as operations of a contract: same verbs, deadline, headers and errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from protobuf.wkt import Struct
from pydantic import BaseModel

from linkspan import App, Client, Code, Context, Contract, Error, Http, Message, Service, ServiceContract, SetupError, command, field, query
from linkspan.message import Timestamp, repeated
from linkspan.transport.retry import RetryDelay
from tests.integration.asgi_servers import uvicorn_serving
from tests.integration.rest_shop import Shop, open_shop

if TYPE_CHECKING:
    from pathlib import Path

contract = Contract("rest.stock.v1")


class GetLevel(Message):
    sku: str = field(1)
    at_least: int = field(2, default=0)
    seen_since: Timestamp | None = field(3, default=None)
    tags: list[str] = repeated(4)


class Reserve(Message):
    sku: str = field(1, key=True)
    how_many: int = field(2)


class Level(Message):
    sku: str = field(1)
    in_stock: int = field(2)
    note: str = field(3, default="")


class Levels(Message):
    levels: list[Level] = repeated(1)


class Stock(ServiceContract):
    """What a warehouse of others offers."""

    get_level = query(GetLevel, Level, http="GET /stock/{sku}")
    all_levels = query(GetLevel, Levels, http=Http("GET /stock", response_body="levels"))
    reserve = command(Reserve, Level, http=Http("POST /stock/{sku}:reserve", errors={409: Code.ABORTED}))
    drop = command(Reserve, Level, http="DELETE /stock/{sku}")
    unrouted = query(GetLevel, Level)


class Desk(ServiceContract):
    look_up = query(GetLevel, Level)


class LevelModel(BaseModel):
    """The other side's own type, in its own spelling."""

    sku: str
    in_stock: int
    note: str = ""


class Wanted(BaseModel):
    """A body."""

    how_many: int


def warehouse(seen: list[Request]) -> FastAPI:
    """Return a service that knows nothing of us."""
    app = FastAPI()

    @app.get("/stock/{sku}")
    async def level(request: Request, sku: str, at_least: int = 0, seen_since: str = "") -> LevelModel:
        seen.append(request)
        match sku:
            case "missing":
                raise HTTPException(404, "No such article.")
            case "slow":
                await asyncio.sleep(1)
        return LevelModel(sku=sku, in_stock=2**53 + 1 + at_least, note=f"{seen_since} {request.query_params.getlist('tags')}")

    @app.get("/stock")
    async def levels() -> list[LevelModel]:
        return [LevelModel(sku="a", in_stock=1), LevelModel(sku="b", in_stock=2)]

    @app.post("/stock/{sku}:reserve")
    async def reserve(request: Request, sku: str, wanted: Wanted) -> LevelModel:
        seen.append(request)
        return LevelModel(sku=sku, in_stock=-wanted.how_many)

    @app.delete("/stock/{sku}", status_code=204)
    async def drop(request: Request, sku: str) -> Response:
        seen.append(request)
        return Response(status_code=204)

    return app


def stock(address: str) -> Client:
    return Client(addresses=f"rest+{address}?names=proto", name="tests")


async def test_query_is_a_get(tmp_path: Path) -> None:
    seen: list[Request] = []
    async with uvicorn_serving(warehouse(seen)) as address, stock(address) as client:
        request = GetLevel(sku="tea ä 1%", at_least=1, seen_since=Timestamp(seconds=0), tags=["x", "y&z"])
        level = await client.call(Stock.get_level, request)
        assert level == Level(sku="tea ä 1%", in_stock=2**53 + 2, note="1970-01-01T00:00:00Z ['x', 'y&z']")
        headers = seen[0].headers
        assert headers["accept"] == "application/json"
        assert headers["traceparent"].startswith("00-")
        assert 0 < int(headers["connect-timeout-ms"]) <= 5000
        assert headers["linkspan-caller"] == "tests"


async def test_command_has_body_and_key(tmp_path: Path) -> None:
    seen: list[Request] = []
    async with uvicorn_serving(warehouse(seen)) as address, stock(address) as client:
        assert await client.call(Stock.reserve, Reserve(sku="tea", how_many=3), key="k-1") == Level(sku="tea", in_stock=-3)
        assert seen[0].headers["idempotency-key"] == "k-1"
        assert seen[0].headers["content-type"] == "application/json"
        assert await client.call(Stock.drop, Reserve(sku="tea", how_many=0)) == Level(sku="", in_stock=0)
        assert seen[1].method == "DELETE"


async def test_answer_can_be_one_field(tmp_path: Path) -> None:
    async with uvicorn_serving(warehouse([])) as address, stock(address) as client:
        found = await client.call(Stock.all_levels, GetLevel(sku=""))
        assert [(level.sku, level.in_stock) for level in found.levels] == [("a", 1), ("b", 2)]


async def failing(client: Client, operation: Any = Stock.get_level, request: Any = None, **options: Any) -> Error:
    with pytest.raises(Error) as raised:
        await client.call(operation, request or GetLevel(sku="x"), **options)
    return raised.value


async def test_errors_of_fastapi_are_understood(tmp_path: Path) -> None:
    async with uvicorn_serving(warehouse([])) as address, stock(address) as client:
        error = await failing(client, request=GetLevel(sku="missing"))
        assert (error.code, error.message) == (Code.NOT_FOUND, "No such article.")
        error = await failing(client, request=GetLevel(sku="slow"), timeout=0.2)
        assert error.code is Code.DEADLINE_EXCEEDED
        async with Client(addresses=f"rest+{address}") as json_names:
            error = await failing(json_names, Stock.reserve, Reserve(sku="tea", how_many=1))
            assert error.code is Code.INVALID_ARGUMENT  # 422: the service knows how_many, not howMany
            (kept,) = error.details
            assert isinstance(kept, Struct)
            assert kept.to_python()["detail"][0]["loc"] == ["body", "how_many"]


PROBLEM = {"type": "about:blank", "title": "Out of stock", "status": 409, "detail": "Only 2 are left.", "left": 2}
ANSWERS: dict[str, tuple[Response, Code, str]] = {
    "problem": (JSONResponse(PROBLEM, 404, media_type="application/problem+json"), Code.NOT_FOUND, "Out of stock: Only 2 are left."),
    "own meaning of a status": (JSONResponse(PROBLEM, 409), Code.ABORTED, "Out of stock: Only 2 are left."),
    "connect": (JSONResponse({"code": "unavailable", "message": "away"}, 500), Code.UNAVAILABLE, "away"),
    "google": (
        JSONResponse({"error": {"code": 400, "message": "not now", "status": "FAILED_PRECONDITION"}}, 400),
        Code.FAILED_PRECONDITION,
        "not now",
    ),
    "grpc-gateway": (JSONResponse({"code": 10, "message": "again", "details": []}, 409), Code.ABORTED, "again"),
    "status alone": (Response(status_code=503), Code.UNAVAILABLE, "answered with HTTP status 503 and no reason"),
    "unknown outcome": (Response("oops", status_code=500), Code.UNKNOWN, "HTTP status 500"),
    "page": (HTMLResponse("<p>no</p>", 403), Code.PERMISSION_DENIED, "HTTP status 403"),
    "page where an answer belongs": (HTMLResponse("<p>hello</p>"), Code.INTERNAL, "instead of JSON: check what listens at the address"),
    "redirect": (RedirectResponse("http://elsewhere.example/"), Code.FAILED_PRECONDITION, "redirects are not followed"),
    "wrong types": (JSONResponse({"in_stock": "many"}), Code.INTERNAL, "Reading 'rest.stock.v1.Level' from JSON failed"),
    "deep": (Response("[" * 5000, status_code=400), Code.INVALID_ARGUMENT, "HTTP status 400"),
    "code of another type": (JSONResponse({"code": []}, 503), Code.UNAVAILABLE, "HTTP status 503"),
    "odd members": (
        JSONResponse({"title": 7, "detail": ["x"], "code": True, "status": 1}, 429),
        Code.RESOURCE_EXHAUSTED,
        "HTTP status 429",
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_other_answers_become_coded_errors(case: str) -> None:
    answer, code, sentence = ANSWERS[case]

    async def peer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await answer(scope, receive, send)

    async with uvicorn_serving(peer, lifespan="off") as address, stock(address) as client:
        error = await failing(client, Stock.reserve, Reserve(sku="tea", how_many=1))
        assert error.code is code
        assert sentence in error.message
        if case == "problem":
            assert [detail.to_python()["left"] for detail in error.details if isinstance(detail, Struct)] == [2]


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("soon", None), ("", None)])
async def test_retry_after_becomes_a_detail(value: str, seconds: int | None) -> None:
    async def peer(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=503, headers={"retry-after": value})(scope, receive, send)

    async with uvicorn_serving(peer, lifespan="off") as address, stock(address) as client:
        error = await failing(client)
        delays = [detail.retry_delay.seconds for detail in error.details if isinstance(detail, RetryDelay) and detail.retry_delay]
        assert delays == ([] if seconds is None else [seconds])


async def test_handler_calls_a_rest_service_within_its_own_deadline(tmp_path: Path) -> None:
    seen: list[Request] = []
    desk = Service("desk", Desk)

    @desk.handles(Desk.look_up)
    async def look_up(ctx: Context, request: GetLevel) -> Level:
        return await ctx.call(Stock.get_level, request)

    async with uvicorn_serving(warehouse(seen)) as address:
        addresses = {"rest.stock.v1.Stock": f"rest+{address}/?names=proto"}
        async with App(desk, broker="memory://", data=tmp_path, http="127.0.0.1:0", addresses=addresses) as app:
            client = app.client()
            assert (await client.call(Desk.look_up, GetLevel(sku="tea"), timeout=2.0)).sku == "tea"
            assert int(seen[0].headers["connect-timeout-ms"]) <= 2000
            assert seen[0].headers["linkspan-caller"] == "desk"
            error = await failing(client, Desk.look_up, GetLevel(sku="missing"))
            assert (error.code, error.message) == (Code.NOT_FOUND, "No such article.")


async def test_our_own_routes_are_called_the_same_way(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen), Client(addresses=f"rest+{app.address}") as client:
        order = await client.call(Shop.get_order, Shop.get_order.request(order_id="a/b"))
        assert (order.order_id, order.quantity) == ("a/b", 2**53 + 1)
        error = await failing(client, Shop.get_order, Shop.get_order.request(order_id="missing"))
        assert (error.code, [type(detail).__name__ for detail in error.details]) == (Code.NOT_FOUND, ["Order"])
        error = await failing(client, Shop.get_order, Shop.get_order.request(order_id="busy"))
        assert [detail.retry_delay.nanos for detail in error.details if isinstance(detail, RetryDelay) and detail.retry_delay]
        assert seen.contexts[0].key
        assert seen.contexts[0].caller == "client"


async def test_what_cannot_be_called_is_told(tmp_path: Path) -> None:
    async with Client(addresses="rest+http://127.0.0.1:1") as client:
        assert "has no route" in (await failing(client, Stock.unrouted)).message
        assert "'sku' does not fit into 'GET /stock/{sku}'" in (await failing(client, request=GetLevel(sku=".."))).message
        error = await failing(client)
        assert (error.code, "Connecting to" in error.message) == (Code.UNAVAILABLE, True)
    for address in ("rest+ftp://x", "rest+http://x?names=other", "rest+http://x?more=1", "rest+http://"):
        with pytest.raises(SetupError):
            Client(addresses=address)
    with pytest.raises(SetupError, match="has settings that are not known"):
        App(addresses={"*": "rest+http://x?nam=proto"}, broker="memory://")
