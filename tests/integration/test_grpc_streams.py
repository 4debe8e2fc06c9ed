"""Streams over gRPC, all kinds: a grpcio client on our server, our client on a grpcio server, and both ends ours."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from linkspan import Client, Code, Error
from tests.unit.app_streams import Count, Number, Numbers, numbers, numbers_service, streams_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from linkspan import App, Context


@contextlib.asynccontextmanager
async def serving(folder: Path, **handlers: Any) -> AsyncIterator[tuple[App, grpc.aio.Channel]]:
    """Give an app with a gRPC port, and a grpcio channel to it."""
    app = streams_app(folder, numbers_service(**handlers), grpc="127.0.0.1:0")
    async with app, grpc.aio.insecure_channel(app.grpc_address.removeprefix("grpc://")) as channel:
        yield app, channel


class ForeignNumbers:
    """A grpcio service of somebody else; `ended` says how its last stream ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.read = 0

    async def count(self, request: Count, context: Any) -> AsyncIterator[Number]:
        for value in range(1, request.to + 1):
            yield Number(value=value)
        if request.text == "fail":
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        if request.text == "wait":
            await self._wait()

    async def add(self, requests: AsyncIterator[Number], context: Any) -> Number:
        total = 0
        try:
            async for number in requests:
                self.read += 1
                total += number.value
                if number.value < 0:
                    return Number(value=-1)
        finally:
            if not self.ended.done():
                self.ended.set_result("cancelled" if context.cancelled() else "ended")
        return Number(value=total)

    async def double(self, requests: AsyncIterator[Number], context: Any) -> AsyncIterator[Number]:
        async for number in requests:
            yield Number(value=2 * number.value)

    async def _wait(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what grpcio serves."""
        kinds: dict[str, tuple[Callable[..., Any], Any, Any]] = {
            "Count": (grpc.unary_stream_rpc_method_handler, self.count, Count),
            "Add": (grpc.stream_unary_rpc_method_handler, self.add, Number),
            "Double": (grpc.stream_stream_rpc_method_handler, self.double, Number),
        }
        made = {
            name: kind(function, request_deserializer=request.from_binary, response_serializer=Number.to_binary)
            for name, (kind, function, request) in kinds.items()
        }
        return grpc.method_handlers_generic_handler(Numbers.full_name, made)


@contextlib.asynccontextmanager
async def foreign() -> AsyncIterator[tuple[ForeignNumbers, Client]]:
    """Give a grpcio server and a client of ours on it."""
    shop, server = ForeignNumbers(), grpc.aio.server()
    server.add_generic_rpc_handlers((shop.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(addresses=f"grpc://127.0.0.1:{port}") as client:
        yield shop, client
    await server.stop(None)


async def written(*values: int) -> AsyncIterator[bytes]:
    for value in values:
        yield Number(value=value).to_binary()


def values_of(bodies: list[Any]) -> list[int]:
    return [Number.from_binary(body).value for body in bodies]


async def test_grpcio_client_streams_with_our_server_in_every_kind(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, channel):
        request = Count(to=3).to_binary()
        one = await channel.unary_unary(Numbers.one.path)(request)
        assert values_of([one]) == [3]
        assert values_of([body async for body in channel.unary_stream(Numbers.count.path)(request)]) == [1, 2, 3]
        assert values_of([await channel.stream_unary(Numbers.add.path)(written(1, 2, 3))]) == [6]
        assert values_of([body async for body in channel.stream_stream(Numbers.double.path)(written(1, 2))]) == [2, 4]


async def test_grpcio_client_holds_a_conversation(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, channel):
        call = channel.stream_stream(Numbers.double.path)()
        for value in (1, 2, 3):
            await call.write(Number(value=value).to_binary())
            assert values_of([await call.read()]) == [2 * value]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_our_client_streams_with_a_grpcio_server_in_every_kind() -> None:
    async with foreign() as (_, client):
        assert [number.value async for number in client.stream(Numbers.count, Count(to=3))] == [1, 2, 3]
        assert (await client.call(Numbers.add, numbers(1, 2, 3))).value == 6
        assert [number.value async for number in client.stream(Numbers.double, numbers(1, 2))] == [2, 4]


async def test_both_ends_are_ours_in_every_kind(tmp_path: Path) -> None:
    async with serving(tmp_path) as (app, _), Client(addresses=app.grpc_address) as client:
        assert [number.value async for number in client.stream(Numbers.count, Count(to=3))] == [1, 2, 3]
        assert (await client.call(Numbers.keep, numbers(1, 2, 3))).value == 6
        assert [number.value async for number in client.stream(Numbers.swap, numbers(1, 2))] == [2, 4]
        assert (await client.call(Numbers.one, Count(to=3))).value == 3


async def test_error_after_some_responses_arrives_with_code_and_details(tmp_path: Path) -> None:
    async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
        yield Number(value=1)
        raise Error(Code.OUT_OF_RANGE, "no more", [Number(value=7)])

    async with serving(tmp_path, count=count) as (app, channel):
        call = channel.unary_stream(Numbers.count.path)(Count(to=3).to_binary())
        assert values_of([await call.read()]) == [1]
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call.read()
        assert (told.value.code(), told.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "no more")
        async with Client(addresses=app.grpc_address) as client:
            responses = client.stream(Numbers.count, Count(to=3))
            assert (await anext(responses)).value == 1
            with pytest.raises(Error) as caught:
                await anext(responses)
            assert (caught.value.code, caught.value.details) == (Code.OUT_OF_RANGE, (Number(value=7),))


async def test_error_of_a_foreign_server_after_some_responses() -> None:
    async with foreign() as (_, client):
        with pytest.raises(Error) as caught:
            assert [number.value async for number in client.stream(Numbers.count, Count(to=2, text="fail"))] == []
        assert (caught.value.code, caught.value.message) == (Code.DATA_LOSS, "lost")


async def test_garbled_request_in_a_stream_is_invalid(tmp_path: Path) -> None:
    async def garbled() -> AsyncIterator[bytes]:
        yield Number(value=1).to_binary()
        yield b"\xff\xff"

    async with serving(tmp_path) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await channel.stream_unary(Numbers.add.path)(garbled())
        assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "app.streams.v1.Number" in str(told.value.details())


async def test_two_requests_for_an_operation_that_takes_one_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as told:
            _ = [body async for body in channel.stream_stream(Numbers.count.path)(written(1, 2))]
        assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_deadline_ends_a_stream_and_its_handler(tmp_path: Path) -> None:
    cleaned = asyncio.Event()

    async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
        try:
            yield Number(value=1)
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with serving(tmp_path, count=count) as (app, channel):
        call = channel.unary_stream(Numbers.count.path)(Count(to=3).to_binary(), timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            _ = [body async for body in call]
        assert told.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await cleaned.wait()
        async with Client(addresses=app.grpc_address) as client:
            with pytest.raises(Error) as caught:
                _ = [number async for number in client.stream(Numbers.count, Count(to=3), timeout=0.2)]
            assert caught.value.code is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("operation", [Numbers.keep, Numbers.swap], ids=["client stream", "bidirectional"])
async def test_half_a_stream_of_a_caller_that_cancels_is_never_taken_for_a_whole_one(operation: Any, tmp_path: Path) -> None:
    whole, ended, all_ended = [0], [0], asyncio.Event()

    async def through(requests: AsyncIterator[Number]) -> AsyncIterator[Number]:
        try:
            async for number in requests:
                yield number
            whole[0] += 1
        finally:
            ended[0] += 1
            if ended[0] == 100:
                all_ended.set()

    async def keep(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        return Number(value=sum([number.value async for number in through(requests)]))

    async def swap(ctx: Context, requests: AsyncIterator[Number]) -> AsyncIterator[Number]:
        async with aclosing(through(requests)) as found:  # type: ignore[type-var]  # a generator, which the alias does not say
            async for number in found:
                yield number

    async with serving(tmp_path, keep=keep, swap=swap) as (_, channel):
        for turn in range(100):
            call: Any = channel.stream_stream(operation.path)()
            await call.write(Number(value=turn).to_binary())
            if operation is Numbers.swap:
                await call.read()
            call.cancel()
        if operation is Numbers.swap:  # those that never read anything may have been cancelled before they began
            async with asyncio.timeout(10):
                await all_ended.wait()
        answer = await channel.stream_unary(Numbers.add.path)(written(1, 2))  # behind all the others
        assert values_of([answer]) == [3]
    assert whole[0] == 0


async def test_caller_that_stops_reading_ends_the_handler(tmp_path: Path) -> None:
    cleaned = asyncio.Event()

    async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
        try:
            while True:
                yield Number(value=1, text="x" * 10_000)
        finally:
            cleaned.set()

    async with serving(tmp_path, count=count) as (app, channel):
        call = channel.unary_stream(Numbers.count.path)(Count(to=3).to_binary())
        await call.read()
        call.cancel()
        async with asyncio.timeout(5):
            await cleaned.wait()
        cleaned.clear()
        async with Client(addresses=app.grpc_address) as client:
            async with aclosing(client.stream(Numbers.count, Count(to=3))) as responses:
                await anext(responses)
            async with asyncio.timeout(5):
                await cleaned.wait()


async def test_slow_reader_slows_the_handler_down(tmp_path: Path) -> None:
    made = [0]

    async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
        while made[0] < 10_000:
            made[0] += 1
            yield Number(value=made[0], text="x" * 100_000)

    async with serving(tmp_path, count=count) as (_, channel):
        call = channel.unary_stream(Numbers.count.path)(Count(to=3).to_binary())
        await call.read()
        before = -1
        while made[0] != before:  # until it stands still
            before = made[0]
            await asyncio.sleep(0.2)
        assert made[0] < 1000  # 100 MB would be 1000 of them: what waits is bounded by the windows of HTTP/2
        await call.read()
        call.cancel()


async def test_reader_of_ours_that_leaves_cancels_the_foreign_handler() -> None:
    async with foreign() as (shop, client):
        async with aclosing(client.stream(Numbers.count, Count(to=1, text="wait"))) as responses:
            assert (await anext(responses)).value == 1
        async with asyncio.timeout(5):
            assert await shop.ended == "cancelled"


async def test_requests_that_raise_end_the_call_and_are_raised() -> None:
    async def failing() -> AsyncIterator[Number]:
        yield Number(value=1)
        raise KeyError("mine")

    async with foreign() as (shop, client):
        with pytest.raises(KeyError, match="mine"):
            await client.call(Numbers.add, failing())
        async with asyncio.timeout(5):
            await shop.ended


async def test_wrong_request_in_a_stream_is_refused() -> None:
    async def wrong() -> AsyncIterator[Any]:
        yield Count(to=1)

    async with foreign() as (_, client):
        with pytest.raises(Error) as caught:
            await client.call(Numbers.add, wrong())
        assert (caught.value.code, "in its stream" in caught.value.message) == (Code.INVALID_ARGUMENT, True)


async def test_server_that_answers_early_is_heard_and_the_requests_are_closed() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Number]:
        try:
            yield Number(value=-1)
            while True:
                await asyncio.sleep(0.01)
                yield Number(value=1)
        finally:
            closed.set()

    async with foreign() as (_, client):
        assert (await client.call(Numbers.add, endless())).value == -1
        async with asyncio.timeout(5):
            await closed.wait()


async def test_stream_that_does_not_end_is_cut_as_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.app.CALLS", 0.05)

    async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
        yield Number(value=1)
        await asyncio.Event().wait()

    async with serving(tmp_path, count=count) as (app, channel):
        call = channel.unary_stream(Numbers.count.path)(Count(to=3).to_binary())
        await call.read()
        await app.aclose()
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call.read()
        assert (told.value.code(), "shutting down" in str(told.value.details())) == (grpc.StatusCode.UNAVAILABLE, True)
