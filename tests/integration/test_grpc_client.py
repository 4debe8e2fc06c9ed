"""Our client against a grpcio server of somebody else: deadlines, metadata, errors, cancellation, what is refused before it leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.grpc_address import grpc_target
from linkspan.transport.grpc_channel import GrpcChannel
from tests.integration.direct_orders import RUNTIME, GetOrder, Order, Orders, OutOfStock
from tests.integration.grpc_orders import ask, foreign_server, free_port, grpc_channel, grpc_serving, refusal


async def test_call_returns_the_answer_and_carries_headers_and_deadline() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        assert await ask(channel, "7", Traceparent="00-1-2-01", **{"idempotency-key": "k", "key-bin": "AQI"}) == Order(
            order_id="7", quantity=3
        )
        seen = shop.metadata[0]
        assert (seen["traceparent"], seen["idempotency-key"], seen["key-bin"]) == ("00-1-2-01", "k", b"\x01\x02")
        assert 4.0 < shop.left[0] <= 5.1


async def test_details_of_our_own_server_come_back_as_messages() -> None:
    async with grpc_serving() as (_, server), grpc_channel(server.address) as channel:
        error = await refusal(channel, "missing")
        assert (error.code, error.message) == (Code.NOT_FOUND, "No order 'missing': check the id.")
        assert error.details == (OutOfStock(sku="tea"),)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.CANCELED])
async def test_every_code_of_a_foreign_server_comes_back(code: Code) -> None:
    async with foreign_server() as (_, address), grpc_channel(address) as channel:
        error = await refusal(channel, code.name)
        assert error.code is code
        assert error.message


async def test_cancel_of_the_server_is_an_error_and_no_cancellation() -> None:
    async with foreign_server() as (_, address), grpc_channel(address) as channel:
        assert (await refusal(channel, "CANCELLED")).code is Code.CANCELED


async def test_garbled_details_do_not_cost_the_code() -> None:
    async with foreign_server() as (_, address), grpc_channel(address) as channel:
        error = await refusal(channel, "garbled")
        assert (error.code, error.message, error.details) == (Code.ABORTED, "why", ())


async def test_deadline_ends_the_call_and_the_server_hears_of_it() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        assert (await refusal(channel, "wait", timeout=0.1)).code is Code.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await shop.cancelled.wait()


async def test_past_deadline_sends_nothing() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        assert (await refusal(channel, timeout=0)).code is Code.DEADLINE_EXCEEDED
        assert not shop.metadata


# as on the direct path: trap 1 of the codec there
async def test_timeout_block_around_a_call_raises_timeout_error_and_cancels_at_the_server() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(channel, "wait")
        async with asyncio.timeout(5):
            await shop.cancelled.wait()


async def test_cancelled_call_is_cancelled() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        task = asyncio.create_task(ask(channel, "wait"))
        await shop.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        async with asyncio.timeout(5):
            await shop.cancelled.wait()
        assert await ask(channel) == Order(order_id="7", quantity=3)


async def test_call_in_flight_ends_unavailable_when_the_channel_closes() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        task = asyncio.create_task(refusal(channel, "wait"))
        await shop.started.wait()
        await channel.aclose()
        error = await task
        assert (error.code, "closed" in error.message) == (Code.UNAVAILABLE, True)
        assert (await refusal(channel)).code is Code.UNAVAILABLE
        await channel.aclose()  # again


async def test_peer_that_is_away_is_unavailable_and_found_again_when_it_is_back() -> None:
    port = free_port()
    async with grpc_channel(f"grpc://127.0.0.1:{port}") as channel:
        error = await refusal(channel)
        assert (error.code, f"127.0.0.1:{port}" in error.message) == (Code.UNAVAILABLE, True)
        async with grpc_serving(port=port), asyncio.timeout(10):
            while True:
                try:
                    assert await ask(channel) == Order(order_id="7", quantity=3)
                    break
                except Error as away:
                    assert away.code is Code.UNAVAILABLE  # noqa: PT017 - until it has tried again
                    await asyncio.sleep(0.05)


async def test_proxy_of_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with foreign_server() as (_, address), grpc_channel(address.replace("127.0.0.1", "localhost")) as channel:
        assert await ask(channel) == Order(order_id="7", quantity=3)


UNFIT = [{"x": "a\r\nb: c"}, {"x y": "1"}, {"x": "ä"}, {"grpc-timeout": "1S"}, {"te": "x"}, {"x": 5}, {"x-bin": "*"}]


@pytest.mark.parametrize("headers", UNFIT)
async def test_unfit_headers_are_refused_before_they_are_sent(headers: Any) -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        with pytest.raises(Error) as caught:
            await channel.unary(Orders.get_order, GetOrder(order_id="7"), headers=headers, timeout=1)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert not shop.metadata


async def test_unwritable_request_and_foreign_answer_are_told_apart() -> None:
    async with foreign_server() as (shop, address), grpc_channel(address) as channel:
        with pytest.raises(Error) as caught:
            await channel.unary(Orders.get_order, GetOrder(order_id=5), headers={}, timeout=1)  # type: ignore[arg-type]
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert not shop.metadata
        with pytest.raises(Error) as caught:
            await channel.unary(Orders.place_order, Order(), headers={}, timeout=1)
        assert caught.value.code is Code.UNIMPLEMENTED


async def test_answer_above_the_limit_is_refused() -> None:
    async with foreign_server() as (_, address), grpc_channel(address, max_message_bytes=100) as channel:
        assert (await refusal(channel, "x" * 200)).code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("rest", ["", "host", "host:0", "host:x", "u@h:1", "h:1/p", "h:1?a", "h ö:1"])
def test_address_that_can_never_be_called_is_a_setup_error(rest: str) -> None:
    with pytest.raises(SetupError, match="write 'grpc://host:port'"):
        GrpcChannel(f"grpc://{rest}", runtime=RUNTIME)


def test_target_of_an_address_keeps_ipv6_in_brackets() -> None:
    assert grpc_target("grpc://[::1]:50051/") == "[::1]:50051"


def test_without_grpcio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.transport.grpc_address.find_spec", lambda _name: None)
    with pytest.raises(SetupError, match=r"pip install 'linkspan\[grpc\]'"):
        grpc_target("grpc://host:1")
