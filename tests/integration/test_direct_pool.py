"""The client's connections against peers that behave badly: reuse, bounds, order, closed connections, broken answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.connect import ConnectChannel
from linkspan.transport.http import PoolLimits
from tests.integration.direct_orders import RUNTIME, GetOrder, Order, Peer, answering, channel_to, get, ok, serving

if TYPE_CHECKING:
    from pathlib import Path


async def refusal(address: str, **options: Any) -> Error:
    async with channel_to(address, **options) as channel:
        with pytest.raises(Error) as caught:
            await get(channel)
    return caught.value


async def test_one_connection_serves_calls_one_after_the_other() -> None:
    async with answering(ok()) as peer, channel_to(peer.address) as channel:
        for _ in range(5):
            await get(channel)
        assert peer.connections == 1


async def test_connections_are_bounded_and_waiting_calls_keep_their_order() -> None:
    async with serving() as (shop, server), channel_to(server.address, pool=PoolLimits(max_connections=3)) as channel:
        orders = await asyncio.gather(*(get(channel, str(n)) for n in range(50)))
        assert [order.order_id for order in orders] == [str(n) for n in range(50)]
        assert len({inbound.peer for inbound in shop.inbound}) == 3
    async with serving() as (shop, server), channel_to(server.address, pool=PoolLimits(max_connections=1)) as channel:
        done: list[int] = []

        async def call(n: int) -> None:
            await get(channel, str(n))
            done.append(n)

        await asyncio.gather(*(call(n) for n in range(20)))
        assert done == list(range(20))


async def test_deadline_ends_a_call_that_waits_for_a_connection() -> None:
    async with serving() as (shop, server), channel_to(server.address, pool=PoolLimits(max_connections=1)) as channel:
        first = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        with pytest.raises(Error) as caught:
            await get(channel, timeout=0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        shop.go_on.set()
        assert (await first).order_id == "wait"
        assert len(shop.inbound) == 1


async def test_deadline_ends_a_call_to_a_peer_that_keeps_silent() -> None:
    async with answering() as peer, channel_to(peer.address) as channel:
        calls = [asyncio.create_task(get(channel, timeout=timeout)) for timeout in (30, 0.08, 0.04)]
        done, _ = await asyncio.wait(calls[1:], timeout=5)
        assert {getattr(call.exception(), "code", None) for call in done} == {Code.DEADLINE_EXCEEDED}
        assert len(done) == 2
        assert not calls[0].done()
        calls[0].cancel()


async def test_cancelled_waiting_call_leaves_the_queue() -> None:
    async with serving() as (shop, server), channel_to(server.address, pool=PoolLimits(max_connections=1)) as channel:
        first = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        second, third = (asyncio.create_task(get(channel, n)) for n in "23")
        await asyncio.sleep(0)
        second.cancel()
        shop.go_on.set()
        assert [(await first).order_id, (await third).order_id] == ["wait", "3"]
        assert second.cancelled()


# trap 5: replaced silently where nothing was sent, unknown where something was
async def test_connection_closed_while_idle_is_replaced() -> None:
    async with serving() as (_, server), channel_to(server.address) as channel:
        await get(channel)
        for connection in list(server._watch.connections):
            connection.transport.close()
        await asyncio.sleep(0)  # the peer has closed; the client's loop may not have noticed yet
        assert await get(channel) == Order(order_id="7", quantity=3)


async def test_close_that_the_loop_has_not_seen_yet_is_found_before_writing() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        await get(channel)
        connection = next(iter(channel._transport._pool._all))
        assert connection.usable()
        connection.transport.pause_reading()  # type: ignore[union-attr] # the loop no longer looks at this socket
        for served in list(server._watch.connections):
            served.transport.close()
        await server._watch.until_gone(5)
        assert not connection.usable()
        assert (await get(channel)).order_id == "7"
        assert shop.inbound[0].peer != shop.inbound[1].peer


async def test_written_request_on_a_connection_that_closes_is_unknown_and_never_sent_twice() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)

    async with Peer(script) as peer:
        error = await refusal(peer.address)
        assert error.code is Code.UNAVAILABLE
        assert "may or may not have run" in error.message
        assert len(peer.requests) == 1


async def test_nobody_listening_is_unavailable_for_all_who_wait() -> None:
    async with serving() as (_, server):
        address = server.address
    async with channel_to(address, pool=PoolLimits(max_connections=2)) as channel:
        results = await asyncio.gather(*(get(channel) for _ in range(9)), return_exceptions=True)
        assert [getattr(error, "code", None) for error in results] == [Code.UNAVAILABLE] * 9


async def test_idle_connections_are_closed_by_the_client() -> None:
    async with serving() as (_, server), channel_to(server.address, pool=PoolLimits(idle_timeout=0.05)) as channel:
        await get(channel, timeout=0.1)
        await server._watch.until_gone(5)
        assert not server._watch.connections


PIECES = [bytes([byte]) for byte in ok()]
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\x0a\r\n2\r\n\x017\r\n0\r\nx: y\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\ncontent-type: application/proto\r\nconnection: close\r\n\r\n\x0a\x017"


@pytest.mark.parametrize(
    "pieces",
    [[ok()], PIECES, [CHUNKED], [UNTIL_CLOSE], [b"HTTP/1.1 100 Continue\r\n\r\n", ok()], [ok(extra="connection: close\r\n")]],
    ids=["whole", "bytewise", "chunked", "until close", "after 100", "closing"],
)
async def test_answer_is_read_however_it_comes(pieces: list[bytes]) -> None:
    async with answering(*pieces) as peer, channel_to(peer.address) as channel:
        for _ in range(3):
            assert await get(channel) == Order(order_id="7")


def answer(status: int, body: bytes = b"", kind: str = "text/html", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


ANSWERS = {
    "400": (answer(400), Code.INTERNAL),
    "401": (answer(401), Code.UNAUTHENTICATED),
    "403": (answer(403), Code.PERMISSION_DENIED),
    "404": (answer(404), Code.UNIMPLEMENTED),
    "429": (answer(429), Code.UNAVAILABLE),
    "502": (answer(502), Code.UNAVAILABLE),
    "503": (answer(503), Code.UNAVAILABLE),
    "504": (answer(504), Code.UNAVAILABLE),
    "302": (answer(302, extra="location: http://127.0.0.1:1/\r\n"), Code.UNKNOWN),
    "418": (answer(418), Code.UNKNOWN),
    "web page": (answer(200, b"<html>"), Code.UNKNOWN),
    "JSON for protobuf": (answer(200, b"{}", "application/json"), Code.INTERNAL),
    "undecodable message": (answer(200, b"\xff", "application/proto"), Code.INTERNAL),
    "unasked compression": (answer(200, b"x", "application/proto", "content-encoding: gzip\r\n"), Code.INTERNAL),
    "error that is no JSON": (answer(503, b"{", "application/json"), Code.UNAVAILABLE),
    "error that is a list": (answer(503, b"[]", "application/json"), Code.UNAVAILABLE),
    "error with odd details": (answer(503, b'{"code":"aborted","details":[5]}', "application/json"), Code.INTERNAL),
    "error with odd message": (answer(503, b'{"code":"aborted","message":[5]}', "application/json"), Code.ABORTED),
    "error with bad base64": (answer(503, b'{"details":[{"type":"x","value":"!"}]}', "application/json"), Code.UNAVAILABLE),
    "error with an odd code": (answer(503, b'{"code":["x"]}', "application/json"), Code.UNAVAILABLE),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", Code.INTERNAL),
    "upgrade": (b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", Code.INTERNAL),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", Code.INTERNAL),
    "length too large": (answer(200, b"x" * 5000, "application/proto"), Code.RESOURCE_EXHAUSTED),
    "chunks too large": (CHUNKED.replace(b"0\r\n", b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n"), Code.RESOURCE_EXHAUSTED),
    "headers too large": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, Code.RESOURCE_EXHAUSTED),
    "cut short, close": (ok()[:-1], Code.UNAVAILABLE),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_bad_answer_has_a_code_and_the_next_call_a_fresh_start(what: str) -> None:
    bad, code = ANSWERS[what]
    answers = [bad, ok()]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.read(reader)
            writer.write(answers.pop(0))
            if "close" in what:
                return

    async with Peer(script) as peer, channel_to(peer.address, max_message_bytes=4000) as channel:
        with pytest.raises(Error) as caught:
            await get(channel)
        assert caught.value.code is code
        assert await get(channel) == Order(order_id="7")


async def test_second_answer_nobody_asked_for_closes_the_connection() -> None:
    answers = [ok("7") + ok("evil"), ok("8")]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.read(reader)
            writer.write(answers.pop(0))

    async with Peer(script) as peer, channel_to(peer.address) as channel:
        assert [(await get(channel)).order_id for _ in range(2)] == ["7", "8"]
        assert peer.connections == 2


async def test_closing_the_channel_ends_its_calls_and_is_repeatable() -> None:
    async with serving() as (shop, server):
        channel = ConnectChannel(server.address, runtime=RUNTIME)
        call = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        await asyncio.gather(channel.aclose(), channel.aclose())
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(Error, match="is closed"):
            await get(channel)


async def test_connect_timeout_is_unavailable() -> None:
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the kernel drops what does not fit into the backlog
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        error = await refusal(f"http://127.0.0.1:{full.getsockname()[1]}", pool=PoolLimits(connect_timeout=0.05))
    assert error.code is Code.UNAVAILABLE
    assert "no connection in time" in error.message


async def test_path_prefix_and_ipv6() -> None:
    try:
        async with serving(host="::1") as (_, server), channel_to(server.address) as channel:
            assert server.address.startswith("http://[::1]:")
            assert (await get(channel)).order_id == "7"
    except SetupError:
        pytest.skip("not run: no IPv6 on loopback")
    async with answering(ok()) as peer, channel_to(f"{peer.address}/api/") as channel:
        await get(channel)
        assert peer.requests[0].startswith(b"POST /api/shop.direct.v1.Orders/GetOrder HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:80", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://a b", "http://u:p@x", "http://x?y", "http://ä"],
)
def test_address_that_can_never_work_is_a_setup_error(address: str) -> None:
    with pytest.raises(SetupError):
        ConnectChannel(address, runtime=RUNTIME)


async def test_large_messages_pass_both_ways() -> None:
    async with serving() as (_, server), channel_to(server.address) as channel:
        assert (await get(channel, "x" * 3_000_000)).order_id == "x" * 3_000_000
        with pytest.raises(Error) as caught:
            await get(channel, "x" * 5_000_000)
        assert caught.value.code in {Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE}
        assert (await get(channel)).order_id == "7"
    assert GetOrder(order_id="x").to_binary() == b"\n\x01x"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: openssl cannot make a certificate here")
    return key, cert


async def test_https_checks_the_certificate(certificate: tuple[Path, Path]) -> None:
    key, cert = certificate
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(cert, key)
    peer = answering(ok())
    server = await asyncio.start_server(peer._serve, "localhost", 0, ssl=server_side)
    address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    trusting = ssl.create_default_context(cafile=str(cert))
    async with channel_to(address, tls=trusting) as channel:
        for _ in range(2):
            assert (await get(channel)).order_id == "7"
    assert (await refusal(address)).code is Code.UNAVAILABLE
    server.close()
