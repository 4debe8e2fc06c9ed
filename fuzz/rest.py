"""Targets of plain HTTP with JSON: what a path, a query and a body may hold, and what a service of others may answer."""

from __future__ import annotations

import contextlib
from typing import Any

from fuzz.messages import Everything, Leaf
from linkspan import Contract, Duration, Float32, Http, Int32, Message, ServiceContract, Timestamp, command, field, query, repeated
from linkspan.errors import Code, Error
from linkspan.transport.endpoint import Endpoint
from linkspan.transport.http import Answer
from linkspan.transport.rest_binding import build_request, read_answer, read_request, write_answer
from linkspan.transport.rest_errors import error_of
from linkspan.transport.rest_router import Router
from linkspan.transport.unary import registry_of

__all__ = ["REST_ANSWERS", "REST_REQUESTS", "rest_answer", "rest_request"]

contract = Contract("fuzz.rest.v1")


class Wanted(Message):
    """A parameter of every kind."""

    text: str = field(1)
    number: int = field(2)
    small: Int32 = field(3)
    raw: bytes = field(4)
    ratio: float = field(5)
    single: Float32 = field(6)
    flag: bool = field(7)
    at: Timestamp | None = field(8, default=None)
    took: Duration | None = field(9, default=None)
    leaf: Leaf | None = field(10, default=None)
    texts: list[str] = repeated(11)


class Shelf(ServiceContract):
    """A route of every kind."""

    find = query(Wanted, Wanted, http="GET /v1/one/{text}/{number}")
    rest = query(Wanted, Wanted, http="GET /v1/all/{text=**}:find")
    whole = command(Everything, Everything, http="POST /v1/{text}")
    part = command(Wanted, Wanted, http=Http("PATCH /v1/{small}/{leaf.name}", body="texts", response_body="texts"))


def _endpoint(operation: Any) -> Endpoint:
    return Endpoint(operation, serve=operation)


ROUTER = Router(_endpoint(operation) for operation in Shelf.operations)


def rest_request(data: bytes) -> None:
    """Read `METHOD path?query`, a line break and a body; what can be read can be written, and read again as the same."""
    head, _, body = data.partition(b"\n")
    method, _, target = head.decode("latin-1").partition(" ")
    path, _, text = target.partition("?")
    with contextlib.suppress(Error):
        match = ROUTER.find(method, path)
        if match is None or match.endpoint is None or match.route is None:
            return
        cls = match.endpoint.operation.request
        message = read_request(match.route, cls, match.path, text, body if match.route.body else b"")
        write_answer(match.route, message)
        built, written = build_request(match.route, message)  # refuses '..' and the like
        path, _, text = built.partition("?")
        again = ROUTER.find(match.route.method, path)
        assert again is not None, built
        if again.route is match.route:  # a value may be the word of a narrower route
            found = read_request(match.route, cls, again.path, text, written or b"")
            assert build_request(match.route, found) == (built, written), (message, found)  # an empty message inside is not written


def rest_answer(data: bytes) -> None:
    """Read an answer: the first line is its Retry-After, the second its status, the rest its body."""
    after, _, rest = data.partition(b"\n")
    status, _, body = rest.partition(b"\n")
    number = int(status) if status.isdigit() and len(status) == 3 else 503
    answer = Answer(number, [("retry-after", after.decode("latin-1"))], body)
    error = error_of(answer, registry_of(Everything), {418: Code.ABORTED}, 1_800_000_000.0)
    assert isinstance(error, Error)
    for operation in Shelf.operations:
        with contextlib.suppress(Error):
            read_answer(operation.routes[0], operation.response, body)


REST_REQUESTS = (
    b"GET /v1/one/a%20b/-7?small=3&ratio=1e3&flag=true&at=2026-01-01T00:00:00Z&took=1.5s&leaf.below.name=x&texts=a&texts=b&raw=AP8",
    b"GET /v1/all/a/b%2Fc:find?number=1&single=0.5",
    b'POST /v1/x\n{"number":"5","leaf":{"name":"a"},"names":{"n":1}}',
    b'PATCH /v1/5/n?text=y\n["a","b"]',
)
REST_ANSWERS = (
    b'7\n409\n{"type":"about:blank","title":"Gone","detail":"It left.","status":409}',
    b'Fri, 31 Dec 1999 23:59:59 GMT\n503\n{"code":"unavailable","message":"away","details":[]}',
    b'x\n404\n{"error":{"code":404,"status":"NOT_FOUND","message":"no"}}',
    b'\n200\n{"text":"x","texts":["a"]}',
)
