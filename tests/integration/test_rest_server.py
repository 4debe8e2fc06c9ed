"""Routes served beside Connect on one port: called by curl, answered by the same handlers, with the same errors."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette

from linkspan import App, Web
from tests.integration.asgi_servers import uvicorn_serving
from tests.integration.direct_orders import raw
from tests.integration.rest_shop import FindOrders, Order, Seen, Status, as_json, curl, open_shop, shop

if TYPE_CHECKING:
    from pathlib import Path

CONNECT = "/rest.shop.v1.Shop/"


async def test_one_handler_answers_a_route_and_connect(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        by_route = await curl(f"{app.address}/v1/orders/a%2Fb%20%C3%BC")
        by_connect = await curl(*as_json({"orderId": "a/b ü"}), f"{app.address}{CONNECT}GetOrder")
        assert by_route[0] == by_connect[0] == 200
        assert by_route[2] == by_connect[2] == {"orderId": "a/b ü", "quantity": "9007199254740993", "status": "STATUS_OPEN"}
        assert by_route[1]["content-type"] == "application/json"
        assert seen.requests[0] == seen.requests[1]
        assert [ctx.operation for ctx in seen.contexts] == ["rest.shop.v1.Shop.GetOrder"] * 2


async def test_query_parameters_are_typed(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        text = "status=STATUS_OPEN&status=2&limit=2&since=2026-01-31T12:00:00Z&within=1.5s&like.quantity=-3&like.orderId=x"
        status, _, body = await curl(f"{app.address}/v1/orders?{text}")
        assert (status, body) == (200, [{"orderId": "0"}, {"orderId": "1"}])
        request = seen.requests[0]
        assert isinstance(request, FindOrders)
        assert request.status == [Status.OPEN, Status.PAID]
        assert (request.limit, request.like) == (2, Order(order_id="x", quantity=-3))
        assert (request.since is not None and request.since.seconds, request.within is not None and request.within.nanos) == (
            1769860800,
            500_000_000,
        )
        assert (await curl(f"{app.address}/v1/orders"))[2] == []


async def test_bodies_and_paths_make_one_message(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        assert (await curl(*as_json({"orderId": "7", "quantity": 3}), f"{app.address}/v1/orders"))[0] == 200
        assert seen.requests[-1] == Order(order_id="7", quantity=3)
        patch = as_json({"quantity": "4"}, method="PATCH")
        assert (await curl(*patch, f"{app.address}/v1/orders/8?reason=typo"))[2] == {"orderId": "8", "quantity": "4"}
        assert seen.requests[-1].reason == "typo"
        assert (await curl("-X", "POST", f"{app.address}/v1/orders/9:cancel"))[0] == 200
        assert (await curl("-X", "DELETE", f"{app.address}/v1/orders/10"))[0] == 200
        assert [request.order_id for request in seen.requests[-2:]] == ["9", "10"]


async def test_additional_and_narrower_routes(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, _):
        assert (await curl(f"{app.address}/v1/archive/7"))[2]["orderId"] == "archive/7"
        assert (await curl(f"{app.address}/v1/orders/latest"))[2] == {"orderId": "latest"}
        assert (await curl(f"{app.address}/v1/orders/7%3Acancel"))[2]["orderId"] == "7:cancel"


async def test_errors_are_those_of_connect(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, _):
        for order_id, status, code in (("missing", 404, "not_found"), ("bug", 500, "internal"), ("busy", 429, "resource_exhausted")):
            by_route = await curl(f"{app.address}/v1/orders/{order_id}")
            by_connect = await curl(*as_json({"orderId": order_id}), f"{app.address}{CONNECT}GetOrder")
            assert (by_route[0], by_connect[0], by_route[2]["code"]) == (status, status, code)
            if order_id != "bug":  # whose text has an id of its own
                assert by_route[2] == by_connect[2]
            assert "secret" not in str(by_route)
            assert by_route[1].get("retry-after") == ("3" if order_id == "busy" else None)
        detail = (await curl(f"{app.address}/v1/orders/missing"))[2]["details"][0]
        assert detail["type"] == "rest.shop.v1.Order"
        assert Order.from_binary(base64.b64decode(detail["value"] + "==")).order_id == "missing"


async def test_deadline_and_key_are_taken_from_the_headers(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        status, _, body = await curl("-H", "connect-timeout-ms: 200", f"{app.address}/v1/orders/wait")
        assert (status, body["code"]) == (504, "deadline_exceeded")
        await asyncio.wait_for(seen.cancelled.wait(), 5)
        key = ["-H", 'Idempotency-Key: "k-7"', "-H", f"traceparent: 00-{'1' * 32}-{'2' * 16}-01"]
        assert (await curl(*as_json({"orderId": "7"}), *key, f"{app.address}/v1/orders"))[0] == 200
        assert seen.contexts[-1].key == "k-7"
        assert seen.contexts[-1].trace.startswith(f"00-{'1' * 32}")


async def test_handler_is_cancelled_when_the_caller_hangs_up(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        async with raw(app.address) as caller:
            caller.writer.write(b"GET /v1/orders/wait HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.wait_for(seen.started.wait(), 5)
        await asyncio.wait_for(seen.cancelled.wait(), 5)
        assert (await curl(f"{app.address}/v1/orders/7"))[0] == 200


async def test_routes_and_connect_share_a_connection(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, _), raw(app.address) as caller:
        for _ in range(3):
            assert (await caller.ask(b"GET /v1/orders/7 HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200
            body = b'{"orderId":"7"}'
            head = b"POST %bGetOrder HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            assert (await caller.ask(head % (CONNECT.encode(), len(body)) + body))[0] == 200


async def test_methods(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        status, headers, body = await curl("-X", "PUT", f"{app.address}/v1/orders/7")
        assert (status, headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH")
        assert body == {
            "code": "unimplemented",
            "message": "This path takes DELETE, GET, HEAD, OPTIONS, PATCH only: use one of these methods.",
        }
        status, headers, _ = await curl("-X", "OPTIONS", f"{app.address}/v1/orders")
        assert (status, headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        assert "access-control-allow-origin" not in headers
        status, headers, body = await curl("--head", f"{app.address}/v1/orders/7")
        assert (status, body, len(seen.requests)) == (200, "", 1)
        assert int(headers["content-length"]) > 20
        assert (await curl(f"{app.address}/v1/nothing"))[2]["code"] == "unimplemented"
        assert (await curl(f"{app.address}/v1/nothing"))[0] == 404


REFUSED: dict[str, tuple[list[str], str, int, str]] = {
    "wrong number": ([], "/v1/orders?limit=many", 400, "Reading the parameter 'limit' failed: give a whole number from 0 to 4294967295."),
    "wrong enum": ([], "/v1/orders?status=GONE", 400, "give one of STATUS_UNSPECIFIED, STATUS_OPEN, STATUS_PAID."),
    "unknown parameter": ([], "/v1/orders?limt=3", 400, "'GET /v1/orders' has no parameter 'limt': check how it is written."),
    "path that is no UTF-8": ([], "/v1/orders/%ff", 400, "percent-encode it in UTF-8"),
    "body that is no JSON": ([*as_json(0)[:-1], "{"], "/v1/orders", 400, "Reading 'rest.shop.v1.Order' from JSON failed (syntax"),
    "wrong type in a body": (as_json({"quantity": "x"}), "/v1/orders", 400, "Reading 'rest.shop.v1.Order' from JSON failed"),
    "form": (["-d", "orderId=7"], "/v1/orders", 415, "send JSON in UTF-8, with 'content-type: application/json'"),
    "compressed": ([*as_json({}), "-H", "content-encoding: gzip"], "/v1/orders", 415, "Reading a compressed body failed"),
    "body on a GET": ([*as_json({}), "-X", "GET"], "/v1/orders/7", 400, "'GET /v1/orders/{order_id}' takes no body"),
    "wrong deadline": (["-H", "connect-timeout-ms: soon"], "/v1/orders/7", 400, "Reading 'connect-timeout-ms' failed"),
    "passed deadline": (["-H", "connect-timeout-ms: 0"], "/v1/orders/7", 504, "Request timed out"),
    "too large": (as_json({"note": "x" * (4 * 1024 * 1024)}), "/v1/orders", 429, "exceeds 4194304: send smaller messages"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_bad_requests_are_told_what_is_wrong(tmp_path: Path, case: str) -> None:
    arguments, path, status, sentence = REFUSED[case]
    if case == "too large":  # longer than a command line may be
        body = tmp_path / "body.json"
        body.write_text(arguments[-1])
        arguments = [*arguments[:-1], f"@{body}"]
    async with open_shop(tmp_path) as (app, seen):
        found, headers, body_read = await curl(*arguments, f"{app.address}{path}")
        assert (found, headers["content-type"]) == (status, "application/json")
        assert sentence in body_read["message"]
        assert not seen.requests


async def test_chunked_body_is_read_and_bounded(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, seen):
        chunked = ["-H", "transfer-encoding: chunked", "-H", "expect:"]
        assert (await curl(*as_json({"orderId": "7"}), *chunked, f"{app.address}/v1/orders"))[0] == 200
        large = tmp_path / "large.json"
        large.write_text('{"note": "' + "x" * (5 * 1024 * 1024) + '"}')
        arguments: list[Any] = [*as_json(0)[:-1], f"@{large}", *chunked]
        status, _, body = await curl(*arguments, f"{app.address}/v1/orders")
        assert (status, body["code"]) == (429, "resource_exhausted")
        assert len(seen.requests) == 1


async def test_routes_answer_below_a_mount(tmp_path: Path) -> None:
    seen = Seen()
    app = App(shop(seen), broker="memory://", data=tmp_path, web=Web(openapi=True))
    outer = Starlette()
    app.mount_on(outer, "/a b")
    async with uvicorn_serving(outer) as address:
        assert (await curl(f"{address}/a%20b/v1/orders/x%2Fy"))[2]["orderId"] == "x/y"
        assert (await curl(f"{address}/a%20b/openapi.json"))[2]["info"]["title"] == "rest.shop.v1"
        assert (await curl(f"{address}/v1/orders/7"))[0] == 404
