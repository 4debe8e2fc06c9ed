"""Hostile and broken requests: a coded error each, and the connection and other callers live on."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from typing import Any

import pytest

from linkspan.errors import SetupError
from linkspan.transport.guard import GuardLimits
from tests.integration.direct_orders import GetOrder, Raw, channel_to, get, post, raw, serving

ORDER = b'{"orderId":"7"}'


async def still_serves(peer: Raw) -> None:
    status, _, body = await peer.ask(post())
    assert (status, json.loads(body)) == (200, {"orderId": "7", "quantity": "3"})


def chunked(*chunks: bytes, **headers: str) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return post(b"", content_length="", transfer_encoding="chunked", **headers) + body


REFUSED = {
    "undecodable binary": (post(b"\xff\xff\xff", content_type="application/proto"), 400, "invalid_argument"),
    "undecodable JSON": (post(b'{"orderId'), 400, "invalid_argument"),
    "JSON of the wrong type": (post(b'{"orderId":{"a":1}}'), 400, "invalid_argument"),
    "JSON too deep": (post(b"[" * 20_000), 400, "invalid_argument"),
    "unknown content type": (post(content_type="text/plain"), 415, ""),
    "no content type": (post(content_type=""), 415, ""),
    "gRPC over HTTP/1.1": (post(b"\0\0\0\0\0", content_type="application/grpc+proto"), 415, "unimplemented"),
    "unknown method": (post(path="/shop.direct.v1.Orders/Nope"), 404, "unimplemented"),
    "unknown service": (post(path="/nobody.v1.Nothing/GetOrder"), 404, "unimplemented"),
    "timeout that is no number": (post(connect_timeout_ms="soon"), 400, "invalid_argument"),
    "negative timeout": (post(connect_timeout_ms="-1"), 400, "invalid_argument"),
    "timeout of 11 digits": (post(connect_timeout_ms="1" * 11), 400, "invalid_argument"),
    "timeout of zero": (post(connect_timeout_ms="0"), 504, "deadline_exceeded"),
    "wrong protocol version": (post(connect_protocol_version="2"), 400, "invalid_argument"),
    "header that is not ASCII": (post(x_name="\xe4"), 400, "invalid_argument"),
    "unknown compression": (post(content_encoding="br"), 501, "unimplemented"),
    "not gzip": (post(content_encoding="gzip"), 400, "invalid_argument"),
    "gzip cut short": (post(gzip.compress(ORDER)[:-9], content_encoding="gzip"), 400, "invalid_argument"),
    "gzip with a tail": (post(gzip.compress(ORDER) * 2, content_encoding="gzip"), 400, "invalid_argument"),
    "oversized chunks": (chunked(*[b"x" * 1000] * 80), 429, "resource_exhausted"),
    "oversized content": (post(b"x" * 70_000), 429, "resource_exhausted"),
    "GET of a command": (b"GET /shop.direct.v1.Orders/PlaceOrder?message=x HTTP/1.1\r\nhost: x\r\n\r\n", 405, ""),
    "GET without a question": (b"GET /shop.direct.v1.Orders/GetOrder?encoding=json HTTP/1.1\r\nhost: x\r\n\r\n", 400, "invalid_argument"),
    "PUT": (post().replace(b"POST", b"PUT", 1), 405, ""),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_refused_with_a_code_and_the_connection_lives_on(what: str, caplog: pytest.LogCaptureFixture) -> None:
    request, status, code = REFUSED[what]
    async with serving(max_message_bytes=64 * 1024) as (_, server), raw(server.address) as peer:
        assert await peer.code(request) == (status, code)
        await still_serves(peer)
    assert not [record for record in caplog.records if record.exc_info]


async def test_gzip_is_accepted_and_answers_stay_plain() -> None:
    async with serving() as (_, server), raw(server.address) as peer:
        status, headers, body = await peer.ask(post(gzip.compress(ORDER), content_encoding="gzip", accept_encoding="gzip"))
        assert (status, json.loads(body)["orderId"]) == (200, "7")
        assert "content-encoding" not in headers


@pytest.mark.parametrize("plain", [200_000_000, 3_000_000])  # above the size cap; below it, above the ratio cap
async def test_compression_bomb_is_refused_in_bounded_memory(plain: int) -> None:
    bomb = gzip.compress(b"0" * plain, 9)
    async with serving() as (_, server), raw(server.address) as peer:
        tracemalloc.start()
        try:
            assert await peer.code(post(bomb, content_encoding="gzip")) == (429, "resource_exhausted")
            assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
        finally:
            tracemalloc.stop()
        await still_serves(peer)


async def test_many_headers_are_refused_and_others_are_served() -> None:
    huge = {f"x{n}": "v" * 1000 for n in range(100)}
    async with serving() as (_, server), raw(server.address) as peer, raw(server.address) as other:
        assert await peer.code(post(**huge)) == (431, "resource_exhausted")
        assert await peer.at_end()
        await still_serves(other)


async def test_huge_headers_behind_a_pipelined_request_are_refused() -> None:
    async with serving() as (_, server), raw(server.address) as peer:
        peer.writer.write(post() + post(**{f"x{n}": "v" * 1000 for n in range(100)}))
        assert [(await peer.answer())[0] for _ in range(2)] == [200, 431]
        assert await peer.at_end()


@pytest.mark.parametrize("junk", [b"\x00\x01junk\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_junk_behind_a_request_is_not_its_answer(junk: bytes) -> None:
    """The caller would read "invalid" for a request that ran."""
    async with serving() as (shop, server), raw(server.address) as peer:
        peer.writer.write(post() + junk)
        assert [(await peer.answer())[0] for _ in range(2)] == [200, 400]
        assert await peer.at_end()
        assert len(shop.inbound) == 1


async def test_endless_header_is_refused() -> None:
    async with serving() as (_, server), raw(server.address) as peer:
        peer.writer.write(b"POST / HTTP/1.1\r\nx: ")
        await peer.writer.drain()
        peer.writer.write(b"a" * 40_000)
        status, _, _ = await peer.answer()
        assert status == 431
        assert await peer.at_end()


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00junk", b"POST\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", post(x_bad="a\0b")])
async def test_what_is_not_http_is_refused_and_others_are_served(junk: bytes) -> None:
    async with serving() as (_, server), raw(server.address) as peer, raw(server.address) as other:
        assert await peer.code(junk) == (400, "invalid_argument")
        assert await peer.at_end()
        await still_serves(other)


async def test_half_a_request_then_close_harms_nobody() -> None:
    async with serving() as (shop, server), raw(server.address) as other:
        for cut in (10, 60, len(post()) - 3):
            async with raw(server.address) as peer:
                peer.writer.write(post()[:cut])
                await peer.writer.drain()
        await still_serves(other)
        assert len(shop.inbound) == 1


@pytest.mark.parametrize("sent", [20, len(post()) - 3])  # in the headers; in the body
async def test_slow_sender_is_cut(sent: int) -> None:
    async with serving() as (shop, server), raw(server.address) as peer, raw(server.address) as other:
        server._limits = GuardLimits(header_timeout=0.05, request_timeout=0.05)
        async with raw(server.address) as slow:
            slow.writer.write(post()[:sent])
            status, headers, _ = await slow.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert await slow.at_end()
        await still_serves(peer)
        await still_serves(other)
        assert len(shop.inbound) == 2


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as (_, server), raw(server.address) as peer:
        peer.writer.write(b"".join(post(b'{"orderId":"%d"}' % n) for n in range(20)))
        bodies = [json.loads((await peer.answer())[2])["orderId"] for _ in range(20)]
        assert bodies == [str(n) for n in range(20)]


async def test_discarded_body_is_bounded() -> None:
    async with serving(max_message_bytes=1000) as (_, server), raw(server.address) as peer:
        status, _, _ = await peer.ask(post(b"", content_length="10000000"))
        assert status == 429
        peer.writer.write(b"x" * 100_000)
        assert await peer.at_end()


async def test_taken_port_is_a_setup_error() -> None:
    async with serving() as (_, server):
        with pytest.raises(SetupError, match="choose another port"):
            async with serving(port=int(server.address.rpartition(":")[2])):
                raise AssertionError("two servers on one port")


async def test_bad_calls_beside_good_ones() -> None:
    async with serving(max_message_bytes=64 * 1024) as (_, server), channel_to(server.address) as channel:

        async def bad(request: bytes) -> Any:
            async with raw(server.address) as peer:
                return await peer.ask(request)

        wrong = [bad(request) for request, _, _ in REFUSED.values()]
        results = await asyncio.gather(*wrong, *(get(channel, str(n)) for n in range(100)))
        assert [order.order_id for order in results[len(wrong) :]] == [str(n) for n in range(100)]
    assert GetOrder(order_id="7").to_json() == '{"orderId":"7"}'
