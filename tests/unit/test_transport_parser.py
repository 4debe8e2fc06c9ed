"""The client's end of a connection, fed by hand: any cut of an answer reads the same, any bytes end in an answer or a coded error."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from linkspan.errors import Code, Error
from linkspan.runtime import system
from linkspan.transport.http import Answer, Connection, Pool, PoolLimits, parse_address

CLOCK = system().clock


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.socket, self.other = socket.socketpair()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        return self.socket

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


async def feed(pieces: list[bytes], *, eof: bool = True) -> Answer | Error:
    """Return what a call ends with when its answer arrives in these pieces, then the end of the stream."""
    pool = Pool(parse_address("http://peer"), clock=CLOCK, limits=PoolLimits(max_header_bytes=2000), max_bytes=1000, tls=None)
    connection, wire = Connection(pool), Wire()
    try:
        connection.connection_made(wire)  # type: ignore[arg-type]
        call = connection.exchange(b"request", 1e12)
        for piece in pieces:
            if not wire.closed:
                connection.data_received(piece)
        if eof and not wire.closed:
            connection.eof_received()
        connection.connection_lost(None)
        assert call.done()
        assert not pool._waiters
        error = call.exception()
        assert error is None or isinstance(error, Error)
        return error or call.result()
    finally:
        if pool._timer is not None:
            pool._timer.cancel()
        wire.socket.close()
        wire.other.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


bodies = st.binary(max_size=400)
places = st.lists(st.integers(0, 10_000), max_size=12)
names = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name not in {"content-length", "transfer-encoding", "connection", "upgrade", "proxy-connection"}
)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@given(
    bodies, st.lists(st.tuples(names, values), max_size=5), places, st.sampled_from(["length", "chunked", "close"]), st.integers(200, 599)
)
def test_answer_reads_the_same_however_it_is_cut(
    body: bytes, headers: list[tuple[str, str]], where: list[int], framing: str, status: int
) -> None:
    if status in {204, 205, 304}:
        body = b""
    head = f"HTTP/1.1 {status} Fine\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    match framing:
        case "length":
            data = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        case "chunked" if status not in {204, 304}:
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (body[:7], body[7:]) if chunk)
            data = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\ntrailer: x\r\n\r\n"
        case _:
            data = f"{head}\r\n".encode() + body
    answer = asyncio.run(feed(cut(data, where)))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers[: len(headers)] == headers


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)), places)
@settings(max_examples=300)
def test_any_bytes_end_in_an_answer_or_a_coded_error(data: bytes, where: list[int]) -> None:
    result = asyncio.run(feed(cut(data, where)))
    if isinstance(result, Error):
        assert result.code in {Code.INTERNAL, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}


@given(bodies.filter(len), st.integers(0, 10_000))
def test_answer_that_stops_early_is_unknown(body: bytes, place: int) -> None:
    data = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    result = asyncio.run(feed([data[: place % len(data)]]))
    assert isinstance(result, Error)
    assert result.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 10,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3000,
    ],
)
def test_answer_above_the_limits_is_cut_while_reading(data: bytes) -> None:
    result = asyncio.run(feed(cut(data, list(range(0, len(data), 100)))))
    assert isinstance(result, Error)
    assert result.code is Code.RESOURCE_EXHAUSTED


async def test_call_cancelled_while_it_is_handed_a_connection_gives_it_back() -> None:
    pool = Pool(parse_address("http://peer"), clock=CLOCK, limits=PoolLimits(max_connections=1), max_bytes=1000, tls=None)
    connection, wire = Connection(pool), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    pool._all.add(connection)
    waiting = asyncio.create_task(pool.send(b"request", 1e12))
    await asyncio.sleep(0)
    pool.release(connection)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool._idle == [connection]
    assert not wire.written
    connection.connection_lost(None)
    await pool.aclose()
    wire.socket.close()
    wire.other.close()
