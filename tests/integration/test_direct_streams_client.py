"""Our client's streams against peers that are slow, wrong or hostile, each told by hand over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Context
from linkspan.errors import Code, Error
from tests.integration.direct_orders import Peer, channel_to
from tests.integration.direct_streams import Item, Items, cut, end, envelope, item, serving_streams
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from linkspan import Handler
    from linkspan.transport.connect import ConnectChannel

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\n"


def whole(*pieces: bytes) -> bytes:
    body = b"".join(pieces)
    return OK + b"content-length: %d\r\n\r\n" % len(body) + body


def refused(status: int, content: Any, kind: str = "application/json") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status} No\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def items(*texts: str) -> AsyncGenerator[Item, None]:
    for text in texts:
        yield Item(text=text)


async def watched(channel: ConnectChannel, *, timeout: float = 10.0, **headers: str) -> list[str]:
    requests = items("a")
    return [found.text async for found in channel.stream(Items.watch, requests, headers=headers, timeout=timeout)]


async def talking(channel: ConnectChannel, requests: AsyncIterator[Item]) -> list[str]:
    return [found.text async for found in channel.stream(Items.chat, requests, headers={}, timeout=10)]


def saying(*pieces: bytes) -> Peer:
    """Answer the first request on each connection with these bytes, then close."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    peer = Peer(script)
    return peer


async def test_stream_is_read_in_whatever_pieces_it_comes() -> None:
    answer = whole(item("a"), item(""), item("c" * 300), end({"metadata": {"x-trailer": ["1", "2"]}}))
    for size in (1, 7, len(answer)):
        async with saying(*(answer[at : at + size] for at in range(0, len(answer), size))) as peer, channel_to(peer.address) as channel:
            assert await watched(channel) == ["a", "", "c" * 300]
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    assert cut(body) == [(0, Item(text="a").to_binary())]
    assert b"content-type: application/connect+proto\r\n" in head
    assert b"connect-protocol-version: 1\r\n" in head
    assert b"connect-timeout-ms: 10000\r\n" in head + b"\r\n"
    assert b"accept-encoding" not in head  # nothing compressed is asked for


async def test_no_deadline_sends_none() -> None:
    async with saying(whole(end())) as peer, channel_to(peer.address) as channel:
        assert await watched(channel, timeout=float("inf")) == []
        assert b"timeout" not in peer.requests[0]


HOSTILE: dict[str, tuple[bytes, Code, str]] = {
    "announces 4 GiB": (whole(item("a"), b"\x00\xff\xff\xff\xff"), Code.RESOURCE_EXHAUSTED, "a message of 4294967295 bytes, above 65536"),
    "above the limit": (whole(envelope(b"x" * 65_537)), Code.RESOURCE_EXHAUSTED, "a message of 65537 bytes"),
    "end above the limit": (whole(envelope(b" " * 65_537, 2)), Code.RESOURCE_EXHAUSTED, "a message of 65537 bytes"),
    "compressed unasked": (whole(envelope(b"x", 1)), Code.INTERNAL, "compressed a message, which was not asked for"),
    "compressed end": (whole(envelope(b"x", 3)), Code.INTERNAL, "an envelope with unknown flags"),
    "unknown flags": (whole(envelope(b"x", 0x40)), Code.INTERNAL, "an envelope with unknown flags"),
    "no message": (whole(envelope(b"\xff\xff\xff")), Code.INTERNAL, "shop.direct.streams.v1.Item"),
    "no end of the stream": (whole(item("a")), Code.INTERNAL, "stopped in the middle of the stream"),
    "cut in a message": (whole(item("abc")[:-1]), Code.INTERNAL, "stopped in the middle of the stream"),
    "cut in a prefix": (whole(item("a"), b"\x00\x00"), Code.INTERNAL, "stopped in the middle of the stream"),
    "goes on after the end": (whole(end(), item("a")), Code.INTERNAL, "went on after the stream's end"),
    "end without JSON": (whole(envelope(b"nonsense", 2)), Code.INTERNAL, "ended the stream in a way that cannot be read"),
    "end that is a list": (whole(end([])), Code.INTERNAL, "ended the stream in a way that cannot be read"),
    "end that is deep": (whole(envelope(b"[" * 60_000, 2)), Code.INTERNAL, "ended the stream in a way that cannot be read"),
    "error that is a text": (whole(end({"error": "no"})), Code.INTERNAL, "ended the stream in a way that cannot be read"),
    "details that are none": (whole(end({"error": {"code": "aborted", "details": 7}})), Code.INTERNAL, "ended the stream in a way"),
    "error without a code": (whole(end({"error": {"message": "hm"}})), Code.UNKNOWN, "hm"),
    "error with a code of its own": (whole(end({"error": {"code": "tired", "message": "hm"}})), Code.UNKNOWN, "hm"),
    "error with a code that is none": (whole(end({"error": {"code": ["x"], "message": "hm"}})), Code.UNKNOWN, "hm"),
    "coded error": (whole(item("a"), end({"error": {"code": "not_found", "message": "No."}})), Code.NOT_FOUND, "No."),
    "content encoding": (OK + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n", Code.INTERNAL, "does not speak Connect properly"),
    "stream encoding": (OK + b"connect-content-encoding: gzip\r\ncontent-length: 0\r\n\r\n", Code.INTERNAL, "does not speak Connect"),
    "unary answer": (refused(200, b"", "application/proto"), Code.UNKNOWN, "instead of 'application/connect+proto'"),
    "JSON stream": (refused(200, b"", "application/connect+json"), Code.INTERNAL, "instead of 'application/connect+proto'"),
    "web page": (refused(200, b"<html>", "text/html"), Code.UNKNOWN, "check what listens at the address"),
    "Connect error": (refused(429, {"code": "resource_exhausted", "message": "Later."}), Code.RESOURCE_EXHAUSTED, "Later."),
    "proxy error": (refused(503, b"<html>", "text/html"), Code.UNAVAILABLE, "HTTP status 503"),
    "not found": (refused(404, b""), Code.UNIMPLEMENTED, "HTTP status 404"),
    "error with wrong details": (refused(400, {"code": "aborted", "details": 7}), Code.INTERNAL, "does not speak Connect properly"),
    "closes at once": (b"", Code.UNAVAILABLE, "closed the connection before the stream's end"),
    "closes in the headers": (OK, Code.UNAVAILABLE, "closed the connection before the stream's end"),
    "closes in the body": (OK + b"content-length: 100\r\n\r\n" + item("a"), Code.UNAVAILABLE, "closed the connection before the stream's"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", Code.INTERNAL, "it is not HTTP/1.1"),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, Code.RESOURCE_EXHAUSTED, "headers above 65536 bytes"),
    "endless refusal": (refused(500, b"x" * 300_000), Code.INTERNAL, "refused the stream with more than 65536 bytes"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_wrong_answer_is_a_coded_error(what: str) -> None:
    answer, code, sentence = HOSTILE[what]
    async with saying(answer) as peer, channel_to(peer.address, max_message_bytes=65_536) as channel:
        with pytest.raises(Error) as raised:
            await watched(channel)
        assert (raised.value.code, sentence in raised.value.message) == (code, True), raised.value


async def test_trap_5_each_stream_has_a_fresh_connection() -> None:
    async with channel_to("http://127.0.0.1:1") as nowhere:
        with pytest.raises(Error, match=r"Connecting to 'http://127\.0\.0\.1:1' failed"):
            await watched(nowhere)
    async with saying(whole(item("b"), end())) as peer, channel_to(peer.address) as channel:
        assert [await watched(channel), await watched(channel)] == [["b"], ["b"]]  # the peer closes after each
        assert peer.connections == 2


async def test_trap_6_timeout_sent_is_what_is_left() -> None:
    class Slow:
        async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
            await asyncio.sleep(0.05)
            return await call_next(ctx, request)

    async with saying(whole(end())) as peer, Client(addresses=peer.address, middleware=[Slow()]) as client:
        assert [found async for found in client.stream(Items.watch, Item(), timeout=5)] == []
        line = next(line for line in peer.requests[0].split(b"\r\n") if line.startswith(b"connect-timeout-ms"))
        assert 0 < int(line.partition(b": ")[2]) < 5000


async def test_deadline_that_has_passed_sends_nothing() -> None:
    async with saying() as peer, channel_to(peer.address) as channel:
        with pytest.raises(Error, match="its deadline had passed"):
            await watched(channel, timeout=0)
        assert peer.connections == 0


@pytest.mark.parametrize("headers", [{"te": "x"}, {"connect-protocol-version": "2"}, {"a b": "x"}, {"x": "ü"}, {"x": "a\r\nb: c"}])
async def test_header_that_would_not_arrive_is_refused(headers: dict[str, str]) -> None:
    async with saying() as peer, channel_to(peer.address) as channel:
        with pytest.raises(Error) as raised:
            await watched(channel, **headers)
        assert (raised.value.code, peer.connections) == (Code.INVALID_ARGUMENT, 0)


async def test_misfilled_request_is_refused_here() -> None:
    async def wrong() -> AsyncIterator[Item]:
        yield Item(text=5)  # type: ignore[arg-type]

    async with serving_streams() as (_, server), channel_to(server.address) as channel:
        with pytest.raises(Error) as raised:
            await talking(channel, wrong())
        assert raised.value.code is Code.INVALID_ARGUMENT


async def test_closing_the_channel_ends_its_streams() -> None:
    async with serving_streams() as (shop, server), channel_to(server.address) as channel:
        stream = channel.stream(Items.chat, items("silent"), headers={}, timeout=10)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(shop.began.wait(), 10)
        await channel.aclose()
        with pytest.raises(Error, match="was closed: what was asked may or may not have been done"):
            await reading
        with pytest.raises(Error, match="is closed: make a new one"):
            await watched(channel)


async def test_trap_1_cancellation_stays_a_cancellation() -> None:
    async with serving_streams() as (shop, server), channel_to(server.address) as channel:

        async def failing() -> None:
            await asyncio.wait_for(shop.began.wait(), 10)
            raise LookupError

        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - the group is the statement
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(talking(channel, items("silent")))
                group.create_task(failing())
        assert [type(error) for error in raised.value.exceptions] == [LookupError]
        assert reading.cancelled()
        await asyncio.wait_for(shop.ended.wait(), 10)


async def test_slow_peer_holds_the_requests() -> None:
    sent = 0

    async def endless() -> AsyncIterator[Item]:
        nonlocal sent
        while True:
            sent += 1
            yield Item(text="x" * 50_000)

    hold, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await hold.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000_000):
                pass
        gone.set()

    async with Peer(script) as peer, channel_to(peer.address) as channel:
        talk = asyncio.ensure_future(talking(channel, endless()))
        counts = [-1] * 5
        while len(set(counts[-5:])) > 1 or sent == 0:
            await asyncio.sleep(0.02)
            counts.append(sent)
        assert sent < 400  # what two sockets hold
        hold.set()
        await until(lambda: sent > counts[-1] + 50, "the client sends on")
        talk.cancel()
        await asyncio.wait([talk])
        await asyncio.wait_for(gone.wait(), 10)
