"""A call over a socket: messages, headers, deadlines, errors, cancellation."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from connectrpc.errors import ConnectError
from protobuf.wkt import Any as AnyMessage, StringValue

from linkspan.errors import Code, Error
from linkspan.transport.server import DirectServer, Endpoint
from linkspan.transport.wire import connect_error, error_from, registry_of
from tests.integration.direct_orders import PATH, RUNTIME, GetOrder, Order, Orders, OutOfStock, channel_to, get, post, raw, serving

if TYPE_CHECKING:
    from linkspan.transport.connect import ConnectChannel


async def refused(channel: ConnectChannel, order_id: str, **options: Any) -> Error:
    with pytest.raises(Error) as caught:
        await get(channel, order_id, **options)
    return caught.value


async def test_call_returns_the_response_and_carries_headers_and_deadline() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        assert await get(channel, "7", traceparent="00-1-2-01") == Order(order_id="7", quantity=3)
        inbound = shop.inbound[0]
        assert inbound.headers["traceparent"] == "00-1-2-01"
        assert inbound.timeout is not None
        assert 4.0 < inbound.timeout <= 5.0
        assert inbound.peer.startswith("127.0.0.1:")
        assert type(inbound.headers) is dict


async def test_curl_places_an_order() -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("not run: curl is not installed")
    async with serving() as (_, server):
        url = f"{server.address}/shop.direct.v1.Orders/PlaceOrder"
        arguments = ("-s", "--compressed", "-d", '{"orderId":"7"}', "-H", "content-type: application/json", url)
        process = await asyncio.create_subprocess_exec(curl, *arguments, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert json.loads(out) == {"orderId": "7"}


async def test_answers_are_identity_with_a_content_length_and_no_server_name() -> None:
    async with serving() as (_, server), raw(server.address) as peer:
        status, headers, body = await peer.ask(post(accept_encoding="gzip, br"))
        assert status == 200
        assert json.loads(body) == {"orderId": "7", "quantity": "3"}
        assert headers["content-length"] == str(len(body))
        assert not headers.keys() & {"content-encoding", "transfer-encoding", "server", "vary"}


async def test_error_code_message_and_details_round_trip() -> None:
    async with serving() as (_, server), channel_to(server.address) as channel:
        error = await refused(channel, "missing")
        assert (error.code, error.message) == (Code.NOT_FOUND, "No order 'missing': check the id.")
        assert error.details == (OutOfStock(sku="tea"),)


@pytest.mark.parametrize("code", list(Code))
async def test_every_code_round_trips(code: Code) -> None:
    async def serve(request: Any, inbound: Any) -> Any:
        raise Error(code, "why")

    server = DirectServer([Endpoint(Orders.get_order, serve)], runtime=RUNTIME)
    await server.start()
    async with channel_to(server.address) as channel:
        error = await refused(channel, "7")
    await server.drain(0.5)
    assert (error.code, error.message) == (code, "why")


def test_detail_of_an_unknown_type_stays_an_any() -> None:
    error = error_from(connect_error(Error(Code.ABORTED, "why", [AnyMessage.pack(OutOfStock(sku="x"))])), registry_of(StringValue))
    assert isinstance(error.details[0], AnyMessage)
    assert error.details[0].type_url == "type.googleapis.com/shop.direct.v1.OutOfStock"


# trap 3 and trap 4
async def test_bug_text_stays_at_the_server_and_the_connection_stays_usable(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        with caplog.at_level(logging.ERROR):
            error = await refused(channel, "bug")
        assert error.code is Code.INTERNAL
        assert "secret" not in str(error)
        record = next(record for record in caplog.records if record.message == "handler failed")
        assert record.__dict__["error_id"] in error.message
        assert record.exc_info is not None
        assert "secret db password" in str(record.exc_info[1])
        await get(channel, "7")
        assert shop.inbound[0].peer == shop.inbound[1].peer  # the same connection


@pytest.mark.parametrize("order_id", ["wrong", "stray", "unwritable"])
async def test_wrong_answers_of_a_handler_are_internal_and_harm_nobody_else(order_id: str) -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        error = await refused(channel, order_id)
        assert error.code is Code.INTERNAL
        await get(channel, "7")
        assert shop.inbound[0].peer == shop.inbound[1].peer


# trap 1
async def test_timeout_block_around_a_call_raises_timeout_error() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await get(channel, "wait")
        async with asyncio.timeout(2):  # less than the call's deadline
            await shop.cancelled.wait()


async def test_cancelled_call_is_cancelled_and_closes_its_connection() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        task = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        async with asyncio.timeout(2):  # less than the call's deadline
            await shop.cancelled.wait()
        assert await get(channel) == Order(order_id="7", quantity=3)
        assert shop.inbound[0].peer != shop.inbound[1].peer


async def test_failure_in_a_task_group_is_not_joined_by_errors_of_cancelled_calls() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:

        async def fail() -> None:
            await shop.started.wait()
            raise KeyError("x")

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(get(channel, "wait"))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def test_deadline_ends_the_call_and_cancels_the_handler() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        error = await refused(channel, "wait", timeout=0.05)
        assert error.code is Code.DEADLINE_EXCEEDED
        await shop.cancelled.wait()


# trap 6: what a peer is told comes from the time that is left, at each call
async def test_server_ends_a_call_at_the_deadline_by_itself() -> None:
    async with serving() as (shop, server), raw(server.address) as peer:
        assert await peer.code(post(b'{"orderId":"wait"}', connect_timeout_ms="50")) == (504, "deadline_exceeded")
        assert shop.cancelled.is_set()
        assert (await peer.ask(post()))[0] == 200


async def test_past_deadline_sends_nothing() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        assert (await refused(channel, "7", timeout=0)).code is Code.DEADLINE_EXCEEDED
        assert not shop.inbound


async def test_handler_is_cancelled_when_the_caller_hangs_up() -> None:
    async with serving() as (shop, server), raw(server.address) as peer:
        peer.writer.write(post(b'{"orderId":"wait"}'))
        await shop.started.wait()
        peer.writer.close()
        await shop.cancelled.wait()


async def test_many_callers_get_their_own_answers() -> None:
    async with serving() as (_, server), channel_to(server.address) as channel:
        orders = await asyncio.gather(*(get(channel, str(n)) for n in range(300)))
        assert [order.order_id for order in orders] == [str(n) for n in range(300)]


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x y": "1"}, {"x": "ä"}, {"host": "evil"}, {"content-length": "0"}, {"x": 5}])
async def test_unfit_headers_are_refused_before_they_are_sent(headers: Any) -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        with pytest.raises(Error) as caught:
            await channel.unary(Orders.get_order, GetOrder(order_id="7"), headers=headers, timeout=1)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert not shop.inbound


# trap 7: permanent local errors must not look like a peer that is down
async def test_unwritable_request_is_not_unavailable() -> None:
    async with serving() as (_, server), channel_to(server.address) as channel:
        with pytest.raises(Error) as caught:
            await channel.unary(Orders.get_order, GetOrder(order_id=5), headers={}, timeout=1)  # type: ignore[arg-type]
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert not isinstance(caught.value, ConnectError)


# trap 2 and trap 8: nothing is compressed unasked, queries travel by POST
async def test_request_is_a_plain_post() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        await get(channel, "x" * 5000)
        headers = shop.inbound[0].headers
        assert not headers.keys() & {"content-encoding", "accept-encoding"}
        assert headers["content-length"] == str(len(GetOrder(order_id="x" * 5000).to_binary()))
    assert Orders.get_order.path == PATH


async def test_extra_app_serves_other_paths() -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    async with serving(extra_app=page) as (_, server), raw(server.address) as peer:
        assert (await peer.ask(b"GET /console HTTP/1.1\r\nhost: x\r\n\r\n"))[::2] == (200, b"hi")
        assert await peer.code(post(path="/shop.direct.v1.Orders/Nope")) == (404, "unimplemented")
        assert (await peer.ask(post()))[0] == 200
