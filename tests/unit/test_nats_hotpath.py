"""The hot path's parser against nats-py's own, on any traffic cut anywhere; and the check that switches it off."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from linkspan.brokers import nats_hotpath
from linkspan.brokers.nats_hotpath import HotParser, check

Seen = list[tuple[Any, ...]]

CLAIMED = b"7"


class Recorder:
    """Stands where nats-py's client stands: notes what a parser calls."""

    def __init__(self) -> None:
        self.seen: Seen = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.seen.append((sid, bytes(subject), bytes(reply), bytes(headers or b""), bytes(data)))

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_pong(self) -> None:
        self.seen.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.seen.append(("info", info["n"]))

    async def _process_err(self, text: str) -> None:
        self.seen.append(("err", text))


def message(sid: int, reply: bytes, headers: bytes | None, data: bytes) -> bytes:
    middle = b" " + reply if reply else b""
    if headers is None:
        return b"MSG a.b %d%b %d\r\n%b\r\n" % (sid, middle, len(data), data)
    block = b"NATS/1.0\r\n" + headers + b"\r\n"
    return b"HMSG a.b %d%b %d %d\r\n%b%b\r\n" % (sid, middle, len(block), len(block) + len(data), block, data)


bodies = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"PING\r\n", b"MSG a 7 1\r\nx\r\n", b"x" * 5000, b"+OK\r\n-ERR"]))
frames = st.one_of(
    st.builds(
        message,
        st.sampled_from([7, 8]),
        st.sampled_from([b"", b"$JS.ACK.s.c.1.1.1.1.0"]),
        st.one_of(st.none(), st.sampled_from([b"", b"A: b\r\n", b"Nats-Msg-Id: x\r\nce-id: 1\r\n"])),
        bodies,
    ),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"n":1}\r\n', b"-ERR 'slow down'\r\n"]),
)


async def heard(parser: Parser, recorder: Recorder, pieces: list[bytes]) -> Seen:
    for piece in pieces:
        await parser.parse(piece)
    return recorder.seen


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges) if end > start]


@settings(max_examples=300, deadline=None)
@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 60_000), max_size=12))
def test_hot_parser_hears_what_nats_py_hears(traffic: list[bytes], places: list[int]) -> None:
    stream = b"".join(traffic)
    plain, hot = Recorder(), Recorder()
    parser = HotParser(hot)
    parser.sinks[CLAIMED] = lambda subject, reply, headers, data: hot.seen.append((7, subject, reply, headers, data))

    expected = asyncio.run(heard(Parser(plain), plain, [stream]))
    found = asyncio.run(heard(parser, hot, cut(stream, places)))

    assert found == expected


async def test_failing_receiver_does_not_end_the_reader(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    parser = HotParser(recorder)
    parser.sinks[CLAIMED] = lambda *_: 1 / 0

    await parser.parse(message(7, b"", None, b"secret") + b"PING\r\n")

    assert recorder.seen == [("ping",)]
    assert "a nats receiver failed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 7 x\r\n",
        b"MSG a 7 -99\r\n",
        b"MSG a 7 -15\r\n",
        b"MSG a 7 999999999999\r\n",
        b"HMSG a 7 r x 5\r\nabcde\r\n",
        b"HMSG\r\n",
        b"MSG a 7 -9\r\nabc\r\n",
        b"what is this\r\n",
        b"INFO 1\r\n",
    ],
)
async def test_what_is_not_nats_is_a_protocol_error(line: bytes) -> None:
    parser = HotParser(Recorder())
    parser.sinks[CLAIMED] = lambda *_: None

    with pytest.raises(ProtocolError):
        await parser.parse(line + b"\r\n\r\n")


async def test_half_a_frame_is_forgotten_at_a_reset() -> None:
    recorder = Recorder()
    parser = HotParser(recorder)
    for half in (b"MSG a 8 500\r\nabc", b"MSG a 8 5", b"INF"):
        await parser.parse(half)
        parser.reset()

    await parser.parse(message(8, b"", None, b"whole"))

    assert [row[-1] for row in recorder.seen] == [b"whole"]


def connected() -> Any:
    client: Any = Client()
    client._transport = TcpTransport()
    client._flush_queue = asyncio.Queue()
    return client


async def test_check_accepts_the_installed_client() -> None:
    assert check(connected()) is None


@pytest.mark.parametrize("name", nats_hotpath.NEEDED)
async def test_check_names_what_is_missing(name: str) -> None:
    class Bare:
        pass

    client = connected()
    bare: Any = Bare()
    for each in nats_hotpath.NEEDED:
        if each != name:
            setattr(bare, each, getattr(client, each))

    assert check(bare) == f"nats-py has no {name}"


async def test_check_refuses_another_version_or_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    other = connected()
    other._transport = object()
    assert check(other) == "the connection is not plain TCP or TLS"

    monkeypatch.setattr(nats_hotpath, "TRIED", ((3, 0), (4, 0)))
    assert check(connected()) == "nats-py 2.16 was not tried"
