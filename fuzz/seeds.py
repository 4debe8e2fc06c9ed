"""Good inputs to begin from, by target: mutations of these reach deeper than noise."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING

import msgspec
from protobuf.wkt import Timestamp

from fuzz.messages import Colour, Echo, Everything, Leaf
from fuzz.rest import REST_ANSWERS, REST_REQUESTS
from linkspan import envelope
from linkspan.batch import joined, pack
from linkspan.envelope import Envelope
from linkspan.errors import Code
from linkspan.ports import Outgoing
from linkspan.transport.unary import error_body
from linkspan.zstd import Packer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DICTIONARY", "SEEDS"]

MESSAGE = Everything(
    text="7",
    data=b"\x00\xff",
    number=-1,
    small=5,
    signed=-7,
    ratio=0.5,
    single=0.25,
    flag=True,
    colour=Colour.RED,
    maybe="",
    at=Timestamp(seconds=1, nanos=2),
    leaf=Leaf(name="a", below=Leaf(name="b")),
    leaves=[Leaf(name="c")],
    names={"n": 1},
    numbers=[1, 2, 3],
)
BINARY, TEXT = MESSAGE.to_binary(), MESSAGE.to_json().encode()
ID = "01934c4c-9b5d-7c2e-8f3a-1234567890ab"
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
BLOCK = envelope.render(
    envelope.prefix("fuzz.v1.Everything", "/orders"),
    Envelope(ID, "/orders", "", "k 1", TRACE, "2026-11-22T08:00:00.000Z", ID, ID, "2026-11-22T09:00:00Z"),
)
BATCHED = [Outgoing("fuzz.v1.events", "Everything", 1, ID, "k", BLOCK, BINARY, number) for number in range(3)]
FOREIGN = b"CE-Id: 1\r\nce-source: /a\r\nce-type: t\r\nce-specversion: 1.0\r\ncontent-type: application/json\r\nce-sequence: 12\r\n"


def _post(body: bytes, kind: str, *more: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in more)
    return (
        f"POST {Echo.echo.path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body
    )


def _answer(status: int, body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _framed(headers: bytes, data: bytes) -> bytes:
    head = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n" + headers + b"\r\n"
    return b"HMSG a.b 1 $JS.ACK.s.c.1.2.3.4.5 %d %d\r\n%b%b\r\n" % (len(head), len(head) + len(data), head, data)


ERROR = error_body(Code.NOT_FOUND, "No order: check the id.", [MESSAGE])
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "binary": (BINARY, Leaf(name="x").to_binary()),
    "json": (TEXT, b'{"leaf":{"below":{"below":{}}}}', b'{"at":"2026-01-01T00:00:00Z","took":"1.5s","word":"x"}'),
    "cloud-event": (BLOCK, BLOCK + b"ce-sequence: 7\r\n", FOREIGN),
    "structured-event": (
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","partitionkey":"k","time":"2026-11-22T08:00:00+01:00","data":%b}' % TEXT,
        b'{"specversion":"1.0","id":"1","source":"/a","type":"t","sequence":7,"data_base64":"%b"}' % base64.b64encode(BINARY),
    ),
    "batch": (pack(BATCHED, Packer(), 0.0).data, joined(BATCHED), joined(BATCHED)[1:], joined([BATCHED[0]])[1:]),
    "messagepack": (msgspec.msgpack.encode(msgspec.json.decode(TEXT)), b"\x81\xa4word\xa1x"),
    "error": (ERROR, b'{"code":"unavailable"}', b'{"code":"internal","details":[{"type":"a","value":"AA"}]}'),
    "nats": (
        b'INFO {"server_id":"x","max_payload":1048576}\r\nPING\r\n',
        _framed(BLOCK, BINARY),
        b"MSG a 1 2\r\nhi\r\n+OK\r\nPONG\r\n",
        b"HMSG a 1 16 16\r\nNATS/1.0 408\r\n\r\n\r\n-ERR 'x'\r\n",
    ),
    "http-server": (
        _post(BINARY, "application/proto", "connect-timeout-ms: 1000", "connect-protocol-version: 1", f"traceparent: {TRACE}"),
        _post(TEXT, "application/json") + _post(BINARY, "application/proto"),
        _post(gzip.compress(BINARY, mtime=0), "application/proto", "content-encoding: gzip"),
        _post(b"\x00\x00\x00\x00\x02\x0a\x00", "application/connect+proto"),
        _post(b"\x00\x00\x00\x00\x02\x0a\x00", "application/grpc-web+proto"),
        f"GET {Echo.echo.path}?connect=v1&base64=1&encoding=proto&message=CgE3 HTTP/1.1\r\nhost: a\r\n\r\n".encode(),
        _post(b"2\r\n{}\r\n0\r\n\r\n", "application/json", "transfer-encoding: chunked").replace(b"content-length: 12\r\n", b""),
        b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    "http-client": (
        _answer(200, BINARY, "application/proto"),
        _answer(404, ERROR, "application/json"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\x0a\x017\r\n0\r\n\r\n",
        b"HTTP/1.1 503 X\r\nconnection: close\r\n\r\nx",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
    ),
    "rest-request": REST_REQUESTS,
    "rest-answer": REST_ANSWERS,
    "orders-file": (
        b"536365,85123A,WHITE HEART,6,12/1/2010 8:26,2.55,17850,United Kingdom\r\n",
        b'C536379,D,"Discount, ""x""",-1,2010-12-01 09:41:00,27.5,14527,United Kingdom\n,,,,,,,\n',
    ),
}

DICTIONARY = (
    "connect-timeout-ms: ",
    "content-encoding: gzip",
    "transfer-encoding: chunked",
    "application/connect+json",
    "application/proto",
    "application/json",
    "ce-id: ",
    "ce-type: ",
    "ce-source: ",
    "ce-partitionkey: ",
    "traceparent: ",
    "HMSG ",
    "MSG ",
    "NATS/1.0",
)
"""Words of the protocols."""
