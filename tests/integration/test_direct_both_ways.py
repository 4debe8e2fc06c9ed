"""The two ways through the server, side by side: the same bytes out for the same bytes in, and one order on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from protobuf.wkt import Any as AnyMessage, Duration, StringValue

from linkspan.errors import Code, Error
from linkspan.transport.fast import FastProtocol
from linkspan.transport.guard import GuardLimits
from linkspan.transport.server import DirectServer, Endpoint
from tests.integration.direct_orders import (
    PATH,
    RUNTIME,
    GetOrder,
    Order,
    Orders,
    OutOfStock,
    Raw,
    Shop,
    answering,
    channel_to,
    get,
    ok,
    post,
    raw,
    serving,
)
from tests.integration.test_direct_bad_input import REFUSED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROTO = "application/proto"
WAYS = [True, False]


class Counted:
    """Ids that are the same for both servers."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def new(self) -> str:
        return f"id-{next(self._numbers)}"

    span = trace = new


FAILURES: dict[str, BaseException] = {
    **{code.value: Error(code, f"why {code.value}") for code in Code},
    "no text": Error(Code.ABORTED, ""),
    "text beyond ASCII": Error(Code.ABORTED, 'ä "quoted" \u2028 \U0001f600\n'),
    "details": Error(Code.ABORTED, "why", [OutOfStock(sku="tea"), StringValue(value="x"), Duration(seconds=3), OutOfStock()]),
    "packed detail": Error(Code.ABORTED, "why", [AnyMessage.pack(OutOfStock(sku="tea")), AnyMessage(type_url="a/b.C", value=b"\xff")]),
    "detail of an unknown type inside": Error(Code.ABORTED, "why", [AnyMessage.pack(AnyMessage(type_url="a/b.C", value=b"\xff"))]),
    "misfilled detail": Error(Code.ABORTED, "why", [OutOfStock(sku=5)]),  # type: ignore[arg-type]
    "exception": ValueError("secret"),
    "exit": SystemExit(3),
    "timeout of its own": TimeoutError("mine"),
}


class Failing(Shop):
    """Raises what the order id names."""

    async def get_order(self, request: Any, inbound: Any) -> Any:
        if request.order_id in FAILURES:
            raise FAILURES[request.order_id]
        return await super().get_order(request, inbound)


def asked(order_id: str, **headers: str) -> bytes:
    return post(GetOrder(order_id=order_id).to_binary(), content_type=PROTO, **headers)


def asked_json(order_id: str, **headers: str) -> bytes:
    return post(json.dumps({"orderId": order_id}).encode(), **headers)


REQUESTS = {
    **{what: request for what, (request, _, _) in REFUSED.items()},
    **{f"{what}, binary": asked(what) for what in FAILURES},
    **{f"{what}, JSON": asked_json(what) for what in FAILURES},
    **{f"handler: {what}": asked(what) for what in ("7", "missing", "bug", "wrong", "stray", "unwritable", "x" * 3000)},
    "JSON": asked_json("7"),
    "empty body": post(b"", content_type=PROTO),
    "empty JSON": post(b""),
    "JSON with unknown fields": post(b'{"orderId":"7","nope":1}'),
    "deadline while the handler runs": asked("wait", connect_timeout_ms="30"),
    "deadline while the handler runs, JSON": asked_json("wait", connect_timeout_ms="30"),
    "deadline while the body comes": asked("7", connect_timeout_ms="30", content_length="2000"),
    "the least timeout header": asked("missing", connect_timeout_ms="0000009999"),
    "an empty timeout header": asked("7").replace(b"\r\n\r\n", b"\r\nconnect-timeout-ms:\r\n\r\n"),
    "timeout with a sign": asked("7", connect_timeout_ms="+5"),
    "identity": asked("7", content_encoding="identity"),
    "asks for compression": asked("7", accept_encoding="gzip, br"),
    "asks for compression, refused": asked("missing", accept_encoding="gzip, br"),
    "asks to close": asked("7", connection="close"),
    "asks to close, refused": asked("missing", connection="close"),
    "asks to keep": asked("7", connection="keep-alive"),
    "protocol version": asked("7", connect_protocol_version="1"),
    "content type with a parameter": post(content_type="application/json; charset=utf-8"),
    "content type in capitals": post(content_type="Application/JSON"),
    "query string": post(path=f"{PATH}?x=1"),
    "escaped path": post(path=PATH.replace("G", "%47")),
    "absolute URL": post(path=f"http://test{PATH}"),
    "HTTP/1.0": asked("7").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "HTTP/1.0, to be kept": asked("7", connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "header twice": asked("7").replace(b"\r\n\r\n", b"\r\nx: 1\r\nx: 2\r\n\r\n"),
    "upgrade": asked("7", connection="upgrade", upgrade="h2c"),
    "header in capitals": asked("7").replace(b"content-type", b"CONTENT-TYPE"),
    "oversized binary": post(b"x" * 70_000, content_type=PROTO),
    "just fits": asked("y" * (64 * 1024 - 4)),
}


@contextlib.asynccontextmanager
async def one_way(*, fast: bool, **options: Any) -> AsyncIterator[tuple[Shop, DirectServer]]:
    shop = Failing()
    server = DirectServer(shop.endpoints, runtime=replace(RUNTIME, ids=Counted()), fast=fast, max_message_bytes=64 * 1024, **options)
    await server.start()
    try:
        yield shop, server
    finally:
        await server.drain(0.5)


async def whole_answer(peer: Raw) -> bytes:
    """Return an answer as it comes from the socket."""
    head = await peer.reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await peer.reader.readexactly(length)


async def exchange(request: bytes, *, fast: bool) -> tuple[bytes, Any, bool]:
    """Return the answer, the headers that the handler saw, and whether the connection was still good afterwards."""
    async with one_way(fast=fast) as (shop, server), raw(server.address) as peer:
        peer.writer.write(request)
        async with asyncio.timeout(5):
            answer = await whole_answer(peer)
        inbound = [each.headers for each in shop.inbound]
        if b"content-length: 2000" in request:
            peer.writer.write(bytes(2000 - len(GetOrder(order_id="7").to_binary())))
        peer.writer.write(asked("7"))
        try:
            async with asyncio.timeout(5):
                return answer, inbound, b" 200 " in await whole_answer(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return answer, inbound, False


@pytest.mark.parametrize("what", REQUESTS)
async def test_same_answer_to_the_byte(what: str) -> None:
    answers = [await exchange(REQUESTS[what], fast=fast) for fast in WAYS]
    assert answers[0] == answers[1]
    assert answers[0][0].startswith(b"HTTP/1.1 ")


async def test_timeout_and_peer_reach_the_handler_both_ways() -> None:
    for fast in WAYS:
        async with one_way(fast=fast) as (shop, server), raw(server.address) as peer:
            await peer.ask(asked("7", connect_timeout_ms="4000"))
            await peer.ask(asked("7"))
            timeout = shop.inbound[0].timeout
            assert timeout is not None
            assert 3.0 < timeout <= 4.0
            assert shop.inbound[1].timeout is None
            assert shop.inbound[0].peer == "{}:{}".format(*peer.writer.get_extra_info("sockname"))


async def test_body_that_waits_to_be_asked_for_is_asked_for() -> None:
    for fast in WAYS:
        async with one_way(fast=fast) as (_, server), raw(server.address) as peer:
            head, _, body = asked("7", expect="100-continue").partition(b"\r\n\r\n")
            status, _, _ = await peer.ask(head + b"\r\n\r\n")
            assert status == 100
            assert (await peer.ask(body))[0] == 200


async def test_plain_calls_never_load_the_other_way() -> None:
    async with one_way(fast=True) as (_, server), raw(server.address) as peer:
        for request in (asked("7"), asked_json("7"), asked("missing"), asked("bug"), post(b"\xff", content_type=PROTO)):
            await peer.ask(request)
        assert server._application is None
        await peer.ask(post(path="/nope"))
        assert server._application is not None


def test_neither_end_loads_connectrpc_for_plain_calls() -> None:
    script = "import sys, linkspan.transport.server, linkspan.transport.connect; print(sys.modules.keys() & {'connectrpc', 'pyqwest'})"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("fast", WAYS)
@pytest.mark.parametrize("cut", [None, 1, 7, 100])
async def test_pipelined_requests_of_both_kinds_are_answered_in_order(*, fast: bool, cut: int | None) -> None:
    requests, statuses = [], []
    for n in range(40):
        requests.append([asked(str(n)), post(path=f"{PATH}?n={n}"), asked("missing"), post(path="/nope"), asked("bug")][n % 5])
        statuses.append([200, 200, 404, 404, 500][n % 5])
    data = b"".join(requests)
    async with one_way(fast=fast) as (_, server), raw(server.address) as peer:

        async def send() -> None:
            for start in range(0, len(data), cut or len(data)):
                peer.writer.write(data[start : start + (cut or len(data))])
                await peer.writer.drain()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(20):
            answers = [await peer.answer() for _ in requests]
        await sending
        assert [status for status, _, _ in answers] == statuses
        bodies = [body for status, _, body in answers if status == 200][::2]
        assert [Order.from_binary(body).order_id for body in bodies] == [str(n) for n in range(0, 40, 5)]


@pytest.mark.parametrize("fast", WAYS)
async def test_requests_that_wait_their_turn_are_bounded(*, fast: bool) -> None:
    """A peer that sends without reading fills its own buffers, not the server's memory."""
    async with one_way(fast=fast) as (shop, server), raw(server.address) as peer:
        peer.writer.write(asked("wait"))
        await shop.started.wait()
        peer.writer.transport.set_write_buffer_limits(0)
        connection = next(iter(server._watch.connections))
        flood = asked("x" * 1000) * 5_000  # 5.8 MB
        peer.writer.write(flood)
        seen = -1
        while len(connection.pipeline) != seen:  # until it takes no more
            seen = len(connection.pipeline)
            await asyncio.sleep(0.05)
        assert connection.flow.read_paused
        assert 16 <= seen < 1000
        shop.go_on.set()
        most = 0
        async with asyncio.timeout(30):
            for _ in range(5_001):
                assert (await peer.answer())[0] == 200
                most = max(most, len(connection.pipeline))
        assert most < 1000


@pytest.mark.parametrize("fast", WAYS)
async def test_caller_that_hangs_up_with_requests_waiting_cancels_the_one_in_hand(*, fast: bool) -> None:
    async with one_way(fast=fast) as (shop, server), raw(server.address) as peer:
        peer.writer.write(asked("wait") + asked("7") * 3)
        await shop.started.wait()
        peer.writer.transport.abort()
        async with asyncio.timeout(5):
            await shop.cancelled.wait()
            await server._watch.until_gone(5)
            while server._state.tasks:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0)
        assert len(shop.inbound) == 1


@pytest.mark.parametrize("fast", WAYS)
async def test_caller_that_does_not_read_holds_up_nobody_but_itself(*, fast: bool) -> None:
    async with one_way(fast=fast) as (shop, server), raw(server.address) as deaf, raw(server.address) as other:
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.writer.write(asked("z" * 60_000) * 300)
        connection = next(each for each in server._watch.connections if each.client == deaf.writer.get_extra_info("sockname"))
        async with asyncio.timeout(20):
            served = -1
            while not connection.flow.write_paused or served != len(shop.inbound):  # until it takes no more
                served = len(shop.inbound)
                await asyncio.sleep(0.1)
        assert connection.transport.get_write_buffer_size() < 1_000_000
        assert (await other.ask(asked("7")))[0] == 200
        deaf.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            for _ in range(300):
                assert (await deaf.answer())[0] == 200
        assert served < 300


@pytest.mark.parametrize("fast", WAYS)
async def test_drain_finishes_the_call_in_hand_and_leaves_no_task(*, fast: bool) -> None:
    async with one_way(fast=fast) as (shop, server), raw(server.address) as peer:
        await peer.ask(asked("7"))
        peer.writer.write(asked("wait"))
        await shop.started.wait()
        assert len(server._state.tasks) == 1
        draining = asyncio.create_task(server.drain(5))
        await asyncio.sleep(0)
        assert not draining.done()
        shop.go_on.set()
        status, headers, body = await peer.answer()
        assert (status, headers["connection"], Order.from_binary(body).order_id) == (200, "close", "wait")
        assert await peer.at_end()
        await draining
        assert not server._state.tasks
        assert server._state.total_requests == 2


async def test_one_timer_serves_all_deadlines_and_each_ends_its_own_call() -> None:
    async with serving(fast=True) as (shop, server), contextlib.AsyncExitStack() as peers:
        late = [await peers.enter_async_context(raw(server.address)) for _ in range(6)]
        for n, peer in enumerate(late):
            peer.writer.write(asked("wait", connect_timeout_ms=str(60 + 20 * n if n else 9000)))
        statuses = [(await peer.answer())[0] for peer in late[1:]]
        assert statuses == [504] * 5
        calls = server._calls
        assert calls is not None
        assert calls._timer is not None  # for the one that is left
        shop.go_on.set()
        assert (await late[0].answer())[0] == 200


async def test_idle_connection_is_closed_by_the_sweep_and_a_busy_one_is_not() -> None:
    async with serving(fast=True) as (shop, server), raw(server.address) as idle, raw(server.address) as busy:
        await idle.ask(asked("7"))
        busy.writer.write(asked("wait"))
        await shop.started.wait()
        for connection in list(server._watch.connections):
            connection.check(RUNTIME.clock.monotonic() + 76)
        assert await idle.at_end()
        shop.go_on.set()
        assert (await busy.answer())[0] == 200


async def test_sender_whose_turn_has_not_come_is_not_slow() -> None:
    async with one_way(fast=True) as (shop, server), raw(server.address) as peer:
        later = asked("y" * 5000)
        peer.writer.write(asked("wait") + later[:300])
        await shop.started.wait()
        connection = next(iter(server._watch.connections))
        assert connection.flow.read_paused
        connection.check(RUNTIME.clock.monotonic() + 1000)
        shop.go_on.set()
        peer.writer.write(later[300:])
        assert [(await peer.answer())[0] for _ in range(2)] == [200, 200]


async def test_body_far_too_large_is_answered_before_the_connection_ends() -> None:
    async with one_way(fast=True) as (_, server), raw(server.address) as peer:
        server._limits = GuardLimits(max_discard_bytes=100_000)
        async with raw(server.address) as big:
            big.writer.write(post(b"x" * 90_000, content_type=PROTO, content_length="2000000"))
            status, headers, _ = await big.answer()
            assert (status, headers["connection"]) == (429, "close")
            big.writer.write(b"x" * 100_000)
            assert await big.at_end()
        server._limits = GuardLimits(max_discard_bytes=80_000)
        async with raw(server.address) as big:
            big.writer.write(post(b"x" * 70_000, content_type=PROTO, content_length="80001"))
            assert (await big.answer())[0] == 429
            big.writer.write(b"x" * 10_001)  # thrown away; then there is nothing more to wait for
            assert await big.at_end()
        assert (await peer.ask(asked("7")))[0] == 200


async def test_deadline_that_passes_before_the_handler_has_begun_is_answered() -> None:
    async with one_way(fast=True) as (shop, server), raw(server.address) as peer:
        await peer.ask(asked("7"))
        connection = next(iter(server._watch.connections))
        connection.data_received(asked("7", connect_timeout_ms="9000"))
        assert isinstance(connection, FastProtocol)
        connection.expire(RUNTIME.clock.monotonic() + 10)  # the call's task has not run yet
        status, _, body = await peer.answer()
        assert (status, json.loads(body)["code"]) == (504, "deadline_exceeded")
        assert (await peer.ask(asked("7")))[0] == 200
        assert len(shop.inbound) == 2


async def test_sender_that_is_slow_behind_an_early_answer_gets_no_second_one() -> None:
    async with one_way(fast=True) as (_, server):
        server._limits = GuardLimits(request_timeout=0.05)
        async with raw(server.address) as peer:
            status, _, _ = await peer.ask(post(b"x", content_type=PROTO, content_length="70000"))
            assert status == 429
            assert await peer.at_end()


async def test_endpoint_that_never_suspends_needs_no_second_turn() -> None:
    async def serve(request: Any, inbound: Any) -> Any:
        return Order(order_id=request.order_id)

    server = DirectServer([Endpoint(Orders.get_order, serve)], runtime=RUNTIME)
    await server.start()
    async with raw(server.address) as peer:
        assert Order.from_binary((await peer.ask(asked("7")))[2]).order_id == "7"
    await server.drain(0.5)
    assert not server._state.tasks


@pytest.mark.parametrize(("coding", "fits"), [("identity", True), ("gzip", False), ("br", False)])
async def test_answer_in_a_coding_that_was_not_asked_for_is_refused(coding: str, *, fits: bool) -> None:
    async with answering(ok(extra=f"content-encoding: {coding}\r\n")) as peer, channel_to(peer.address) as channel:
        if fits:
            assert (await get(channel)).order_id == "7"
            return
        with pytest.raises(Error, match="does not speak Connect") as caught:
            await get(channel)
        assert caught.value.code is Code.INTERNAL
