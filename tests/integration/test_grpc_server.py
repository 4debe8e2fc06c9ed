"""A grpcio client against our gRPC port: messages, metadata, deadlines, errors, cancellation, limits, end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.endpoint import Endpoint
from linkspan.transport.grpc_server import GrpcServer
from linkspan.transport.grpc_status import CODES, error_from_grpc
from linkspan.transport.unary import registry_of
from tests.integration.direct_orders import PATH, RUNTIME, GetOrder, Order, Orders, OutOfStock
from tests.integration.grpc_orders import foreign_client, grpc_serving


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_grpcio_client_gets_the_answer_and_its_metadata_and_deadline_arrive() -> None:
    async with grpc_serving() as (shop, server), foreign_client(server) as get:
        assert await get("7", timeout=5, metadata=(("traceparent", "00-1-2-01"), ("key-bin", b"\x01\x02"))) == Order(
            order_id="7", quantity=3
        )
        inbound = shop.inbound[0]
        assert inbound.headers["traceparent"] == "00-1-2-01"
        assert inbound.headers["key-bin"] == "AQI"
        assert inbound.timeout is not None
        assert 4.0 < inbound.timeout <= 5.1  # gRPC rounds up on the wire
        assert inbound.peer.startswith("127.0.0.1:")
        await get("7")
        assert shop.inbound[1].timeout is None


async def test_error_code_message_and_details_arrive() -> None:
    async with grpc_serving() as (_, server), foreign_client(server) as get:
        error = await refused(get("missing"))
        read = error_from_grpc(error.code(), error.details(), error.trailing_metadata(), registry_of(OutOfStock))
        assert (read.code, read.message, read.details) == (Code.NOT_FOUND, "No order 'missing': check the id.", (OutOfStock(sku="tea"),))


@pytest.mark.parametrize("code", list(Code))
async def test_every_code_arrives(code: Code) -> None:
    async def serve(request: Any, inbound: Any) -> Any:
        raise Error(code, "wäre schön")

    server = GrpcServer([Endpoint(Orders.get_order, serve)], runtime=RUNTIME)
    await server.start()
    async with foreign_client(server) as get:
        error = await refused(get())
    await server.drain(0.5)
    assert (error.code(), error.details()) == (CODES[code], "wäre schön")


async def test_details_and_messages_too_large_for_headers_do_not_cost_the_code() -> None:
    async def serve(request: Any, inbound: Any) -> Any:
        raise Error(Code.ABORTED, "x" * 50_000, [OutOfStock(sku="a"), OutOfStock(sku="y" * 50_000)])

    server = GrpcServer([Endpoint(Orders.get_order, serve)], runtime=RUNTIME)
    await server.start()
    async with foreign_client(server) as get:
        error = await refused(get())
    await server.drain(0.5)
    assert error.code() is grpc.StatusCode.ABORTED
    read = error_from_grpc(error.code(), error.details(), error.trailing_metadata(), registry_of(OutOfStock))
    assert read.details == (OutOfStock(sku="a"),)


async def test_bug_text_stays_at_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_serving() as (_, server), foreign_client(server) as get:
        with caplog.at_level(logging.ERROR):
            error = await refused(get("bug"))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in repr(error)
        record = next(record for record in caplog.records if record.message == "handler failed")
        assert record.__dict__["error_id"] in str(error.details())


@pytest.mark.parametrize("order_id", ["wrong", "stray", "unwritable"])
async def test_wrong_answers_of_a_handler_are_internal(order_id: str) -> None:
    async with grpc_serving() as (_, server), foreign_client(server) as get:
        assert (await refused(get(order_id))).code() is grpc.StatusCode.INTERNAL
        assert await get() == Order(order_id="7", quantity=3)


async def test_unknown_operation_and_garbled_request_are_refused_in_our_words() -> None:
    async with grpc_serving() as (shop, server), foreign_client(server) as get:
        unknown = await refused(get.channel.unary_unary("/shop.direct.v1.Orders/Burn")(b""))
        assert (unknown.code(), "no such operation" in str(unknown.details())) == (grpc.StatusCode.UNIMPLEMENTED, True)
        garbled = await refused(get.channel.unary_unary(PATH)(b"\xff\xff"))
        assert (garbled.code(), "shop.direct.v1.GetOrder" in str(garbled.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert not shop.inbound


async def test_request_above_the_limit_is_refused() -> None:
    async with grpc_serving(max_message_bytes=1000) as (shop, server), foreign_client(server) as get:
        assert (await refused(get("x" * 2000))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not shop.inbound


async def test_small_request_that_unpacks_to_a_large_one_is_refused() -> None:
    async with grpc_serving(max_message_bytes=100_000) as (shop, server):
        options = {"compression": grpc.Compression.Gzip, "options": [("grpc.max_send_message_length", -1)]}
        async with foreign_client(server, **options) as get:
            error = await refused(get("x" * 20_000_000))
            assert (error.code(), "Decompressed" in str(error.details())) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
            assert await get("7" * 10_000) == Order(order_id="7" * 10_000, quantity=3)
        assert len(shop.inbound) == 1


async def test_handler_is_cancelled_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_serving() as (shop, server), foreign_client(server) as get:
        assert (await refused(get("wait", timeout=0.1))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await shop.cancelled.wait()
    assert not caplog.records


async def test_handler_is_cancelled_when_the_caller_cancels_or_goes_away() -> None:
    async with grpc_serving() as (shop, server):
        async with foreign_client(server) as get:
            call = get("wait")
            await shop.started.wait()
            call.cancel()
            async with asyncio.timeout(5):
                await shop.cancelled.wait()
            shop.started.clear()
            shop.cancelled.clear()
            left = asyncio.ensure_future(refused(get("wait")))
            await shop.started.wait()
        left.cancel()  # the channel is closed, as by a process that ends
        async with asyncio.timeout(5):
            await shop.cancelled.wait()


async def test_drain_finishes_calls_in_flight_and_refuses_new_ones() -> None:
    async with grpc_serving() as (shop, server), foreign_client(server) as get:
        call = asyncio.ensure_future(_awaited(get("wait")))
        await shop.started.wait()
        draining = asyncio.create_task(server.drain(10))
        while (await refused_or_none(get("7", timeout=1))) is None:
            pass
        assert not draining.done()
        shop.go_on.set()
        assert (await call).order_id == "wait"
        await asyncio.wait_for(draining, 5)
        await server.drain(5)  # again


async def _awaited(call: Any) -> Any:
    return await call


async def refused_or_none(call: Any) -> grpc.StatusCode | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_call_that_does_not_end_is_cut_as_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_serving() as (shop, server), foreign_client(server) as get:
        call = asyncio.ensure_future(refused(get("wait")))
        await shop.started.wait()
        await server.drain(0.05)
        error = await call
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in str(error.details())
        assert shop.cancelled.is_set()
    assert not caplog.records


async def test_port_that_is_taken_is_a_setup_error() -> None:
    async with grpc_serving() as (_, server):
        other = GrpcServer([], runtime=RUNTIME, port=int(server.address.rpartition(":")[2]))
        with pytest.raises(SetupError, match="LINKSPAN_GRPC"):
            await other.start()
        await other.drain(1)


async def test_calls_on_one_channel_run_side_by_side() -> None:
    async with grpc_serving() as (_, server), foreign_client(server) as get:
        orders = await asyncio.gather(*(_awaited(get(str(n))) for n in range(300)))
        assert [order.order_id for order in orders] == [str(n) for n in range(300)]
        assert await get.channel.unary_unary(PATH)(GetOrder(order_id="9").to_binary()) == Order(order_id="9", quantity=3).to_binary()
