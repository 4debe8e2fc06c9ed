"""Connect streams as any client writes them, over raw sockets: what is answered, and what hostile requests come to."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest

from linkspan.transport.guard import GuardLimits
from tests.integration.direct_orders import raw
from tests.integration.direct_streams import (
    Item,
    asked,
    chunk,
    cut,
    envelope,
    head,
    item,
    item_json,
    serving_streams,
    status_of,
    stream_of,
    whole_body,
)


async def test_streams_are_served_to_a_client_that_speaks_connect() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Watch", item("a", 2)))
        assert await stream_of(peer) == (["a", "a"], {})
        peer.writer.write(asked("Upload", item("a"), item("b")))
        assert await stream_of(peer) == (["a,b"], {})
        peer.writer.write(asked("Chat", item("a"), item("b")))
        assert await stream_of(peer) == (["a", "b"], {})
        peer.writer.write(head("Upload", transfer_encoding="chunked") + chunk(item("c")[:3]) + chunk(item("c")[3:]) + b"0\r\n\r\n")
        assert await stream_of(peer) == (["a,b,c"], {})


async def test_streams_are_served_in_json() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Chat", item_json("a"), item_json("b"), kind="application/connect+json"))
        status, headers = await status_of(peer)
        *messages, last = cut(await whole_body(peer, headers))
        assert (status, headers["content-type"]) == (200, "application/connect+json")
        assert [json.loads(message)["text"] for _, message in messages] == ["a", "b"]
        assert last == (2, b"{}")


async def test_full_duplex_works_where_client_and_server_do_it() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(head("Chat", transfer_encoding="chunked"))
        for text in ("a", "b"):
            peer.writer.write(chunk(item(text)))
            if text == "a":
                await status_of(peer)
            assert int(await peer.reader.readuntil(b"\r\n"), 16) == len(item(text))
            assert await peer.reader.readexactly(len(item(text)) + 2) == item(text) + b"\r\n"


async def test_deadline_travels_and_ends_the_stream() -> None:
    async with serving_streams() as (shop, server), raw(server.address) as peer:
        peer.writer.write(asked("Chat", item("silent"), connect_timeout_ms="100"))
        texts, last = await stream_of(peer)
        assert (texts, last["error"]["code"]) == ([], "deadline_exceeded")
        assert shop.ended.is_set()
        assert 0 < (shop.inbound[0].timeout or 0) <= 0.1


async def test_error_after_messages_ends_the_stream_with_code_and_details() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Watch", item("coded", 2)))
        texts, last = await stream_of(peer)
        assert texts == ["coded", "coded"]
        assert (last["error"]["code"], last["error"]["message"]) == ("not_found", "No more.")
        assert last["error"]["details"][0]["type"] == "shop.direct.streams.v1.Item"


async def test_trap_3_a_bug_tells_its_id_only() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Watch", item("bug", 1)))
        _, last = await stream_of(peer)
        assert last["error"]["code"] == "internal"
        assert last["error"]["message"].startswith("Internal error '")
        assert "secret" not in json.dumps(last)


async def test_trap_4_a_bug_leaves_the_connection_usable() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        for _ in range(3):
            peer.writer.write(asked("Watch", item("bug", 1)))
            assert (await stream_of(peer))[1]["error"]["code"] == "internal"
        peer.writer.write(asked("Watch", item("a", 1)))
        assert await stream_of(peer) == (["a"], {})


async def test_trap_8_nothing_is_compressed_for_those_who_would_take_it() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Watch", item("a" * 1000, 1), connect_accept_encoding="gzip", accept_encoding="gzip"))
        status, headers = await status_of(peer)
        assert status == 200
        assert headers.get("connect-content-encoding", "identity") == "identity"
        assert [flags for flags, _ in cut(await whole_body(peer, headers))] == [0, 2]


async def test_compressed_requests_are_read() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        packed = envelope(gzip.compress(Item(text="packed").to_binary()), 1)
        peer.writer.write(asked("Upload", packed, item("plain"), connect_content_encoding="gzip"))
        assert await stream_of(peer) == (["packed,plain"], {})


def bomb() -> bytes:
    return gzip.compress(Item(text="x" * 10_000_000).to_binary())


HOSTILE: dict[str, tuple[bytes, str]] = {
    "announces 4 GiB": (head("Upload", transfer_encoding="chunked") + chunk(b"\x00\xff\xff\xff\xff" + b"x" * 50), "resource_exhausted"),
    "one byte above the limit": (asked("Upload", envelope(b"x" * 65_537)), "resource_exhausted"),
    "a bomb": (asked("Upload", envelope(bomb(), 1), connect_content_encoding="gzip"), "resource_exhausted"),
    "not gzip": (asked("Upload", envelope(b"nonsense", 1), connect_content_encoding="gzip"), "invalid_argument"),
    "gzip cut off": (asked("Upload", envelope(gzip.compress(item("a"))[:-4], 1), connect_content_encoding="gzip"), "invalid_argument"),
    "compressed without saying how": (asked("Upload", envelope(zlib.compress(b""), 1)), "internal"),
    "unknown compression": (asked("Upload", item("a"), connect_content_encoding="br"), "unimplemented"),
    "unknown flags": (asked("Upload", envelope(b"", 0x80)), "invalid_argument"),
    "ends as a server would": (asked("Upload", envelope(b"{}", 2)), "invalid_argument"),
    "cut in a message": (asked("Upload", item("a"), item("bcd")[:-1]), "invalid_argument"),
    "cut in a prefix": (asked("Upload", item("a"), b"\x00\x00"), "invalid_argument"),
    "no message": (asked("Upload", envelope(b"\xff\xff\xff")), "invalid_argument"),
    "no JSON": (asked("Upload", envelope(b"{"), kind="application/connect+json"), "invalid_argument"),
    "deep JSON": (asked("Upload", envelope(b"[" * 60_000), kind="application/connect+json"), "invalid_argument"),
    "no request": (asked("Watch"), "unimplemented"),
    "two requests for one": (asked("Watch", item("a"), item("b")), "unimplemented"),
    "timeout that is none": (asked("Watch", item("a"), connect_timeout_ms="soon"), "invalid_argument"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_request_is_answered_with_a_code_and_the_server_goes_on(what: str) -> None:
    request, code = HOSTILE[what]
    async with serving_streams(max_message_bytes=65_536) as (_, server):
        async with raw(server.address) as peer:
            peer.writer.write(request)
            status, headers = await status_of(peer)
            body = await whole_body(peer, headers)
            told: Any = json.loads(body) if headers["content-type"] == "application/json" else json.loads(cut(body)[-1][1])["error"]
            assert told["code"] == code
            assert status == 200 or headers["content-type"] == "application/json"
            assert b"xxxxx" not in body
        async with raw(server.address) as peer:
            peer.writer.write(asked("Watch", item("a", 1)))
            assert await stream_of(peer) == (["a"], {})


@pytest.mark.parametrize("kind", ["application/proto", "application/json", "application/connect+xml", "text/plain", ""])
async def test_content_type_of_no_stream_is_refused(kind: str) -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(asked("Watch", item("a", 1), kind=kind))
        status, headers = await status_of(peer)
        await whole_body(peer, headers)
        assert status == 415


async def test_stream_may_be_larger_and_last_longer_than_a_call() -> None:
    async with serving_streams(max_message_bytes=65_536) as (shop, server), raw(server.address) as peer:
        server._limits = GuardLimits(request_timeout=0.01, streams=server._limits.streams)
        many = [item("y" * 60_000)] * 5
        peer.writer.write(asked("Upload", *many))
        assert len((await stream_of(peer))[0][0]) == 5 * 60_000 + 4
        shop.received.clear()
        shop.ended.clear()
    async with serving_streams() as (shop, server):
        server._limits = GuardLimits(request_timeout=0.01, streams=server._limits.streams)
        async with raw(server.address) as peer:
            peer.writer.write(head("Upload", transfer_encoding="chunked") + chunk(item("a")))
            await asyncio.sleep(0.05)
            server._watch.check()  # what closes slow senders of calls
            peer.writer.write(chunk(item("b")) + b"0\r\n\r\n")
            assert await stream_of(peer) == (["a,b"], {})


async def test_client_that_goes_away_ends_the_handler_that_only_yields() -> None:
    async with serving_streams() as (shop, server):
        async with raw(server.address) as peer:
            peer.writer.write(head("Chat", transfer_encoding="chunked") + chunk(item("endless")))  # the request never ends
            await peer.reader.readexactly(5000)
        await asyncio.wait_for(shop.ended.wait(), 10)


async def test_client_that_goes_away_ends_the_handler_that_waits() -> None:
    async with serving_streams() as (shop, server):
        for request in (asked("Chat", item("silent")), head("Chat", transfer_encoding="chunked") + chunk(item("silent"))):
            shop.ended.clear()
            async with raw(server.address) as peer:
                peer.writer.write(request)
                await asyncio.wait_for(shop.began.wait(), 10)
            await asyncio.wait_for(shop.ended.wait(), 10)
            shop.began.clear()


async def test_client_that_goes_away_while_it_sends_cancels_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_streams() as (shop, server):
        async with raw(server.address) as peer:
            peer.writer.write(head("Upload", transfer_encoding="chunked") + chunk(item("a")))
            await asyncio.wait_for(shop.began.wait(), 10)
        await asyncio.wait_for(shop.ended.wait(), 10)
        assert [type(error) for error in shop.errors] == [asyncio.CancelledError]
    assert caplog.records == []


async def test_early_answer_leaves_the_connection_usable() -> None:
    async with serving_streams() as (_, server), raw(server.address) as peer:
        peer.writer.write(head("Upload", transfer_encoding="chunked") + chunk(item("enough")))
        assert await stream_of(peer) == (["enough"], {})
        peer.writer.write(chunk(item("more")) + b"0\r\n\r\n" + asked("Watch", item("a", 1)))
        assert await stream_of(peer) == (["a"], {})
