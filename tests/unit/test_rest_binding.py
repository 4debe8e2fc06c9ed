"""A message is split into path, query and body, and comes out whole; wrong parameters are named, their values never."""

from __future__ import annotations

import json
import math
from typing import Any, Literal
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings, strategies as st
from protobuf import message_to_json_value
from protobuf.wkt import BoolValue, BytesValue, DoubleValue, FieldMask, Int64Value, StringValue, Struct

from linkspan.contract import Contract
from linkspan.errors import Code, Error
from linkspan.message import (
    Duration,
    Enum,
    Float32,
    Int32,
    Message,
    Oneof,
    Timestamp,
    UInt32,
    UInt64,
    field,
    mapping,
    oneof,
    repeated,
)
from linkspan.operation import Operation, ServiceContract, command, query
from linkspan.routes import Http
from linkspan.transport.endpoint import Endpoint
from linkspan.transport.rest_binding import build_request, read_answer, read_request, write_answer
from linkspan.transport.rest_router import Router

contract = Contract("test.binding.v1")


class Mood(Enum):
    UNSPECIFIED = 0
    GOOD = 1


class Inner(Message):
    city: str = field(1)
    numbers: list[int] = repeated(2)
    deeper: Inner | None = field(3, default=None)


class Values(Message):
    text: str = field(1)
    i64: int = field(2)
    i32: Int32 = field(3)
    u32: UInt32 = field(4)
    u64: UInt64 = field(5)
    flag: bool = field(6)
    raw: bytes = field(7)
    f64: float = field(8)
    f32: Float32 = field(9)
    mood: Mood = field(10)
    at: Timestamp | None = field(11, default=None)
    within: Duration | None = field(12, default=None)
    maybe: str | None = field(13, default=None)
    maybe_number: int | None = field(14, default=None)
    boxed: Int64Value | None = field(15, default=None)
    boxed_text: StringValue | None = field(16, default=None)
    boxed_raw: BytesValue | None = field(17, default=None)
    boxed_flag: BoolValue | None = field(18, default=None)
    boxed_f64: DoubleValue | None = field(19, default=None)
    mask: FieldMask | None = field(20, default=None)
    texts: list[str] = repeated(21)
    moods: list[Mood] = repeated(22)
    times: list[Timestamp] = repeated(23)
    inner: Inner | None = field(24, default=None)
    how: Oneof[Literal["card"], str] | Oneof[Literal["points"], int] | None = oneof(card=25, points=26)
    class_: str = field(27, default="")


class Whole(Message):
    order_id: str = field(1)
    number: int = field(2)
    inner: Inner | None = field(3, default=None)
    by_name: dict[str, str] = mapping(4)
    parts: list[Inner] = repeated(5)
    tree: Struct | None = field(6, default=None)


class Holder(Message):
    whole: Whole | None = field(1, default=None)


class Bound(ServiceContract):
    hold = query(Holder, Holder, http="GET /v1/hold")
    find = query(Values, Values, http="GET /v1/values")
    at_path = query(Values, Values, http="GET /v1/p/{text}/{i64}/{flag}/{mood}/{raw}/{u64}")
    get_inner = query(Whole, Whole, http=Http("POST /v1/w/{order_id}/{inner.city}/{number}", response_body="parts"))
    put_inner = command(Whole, Inner, http=Http("PUT /v1/{order_id=shops/*/orders/**}", body="*", response_body="city"))
    set_inner = command(Inner, Inner, http=Http("PATCH /v1/i/{city}", body="numbers"))


ROUTES = Router([Endpoint(operation, Any) for operation in Bound.operations])  # type: ignore[arg-type]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SEGMENT = TEXT.filter(lambda text: text not in {"", ".", ".."})
I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)
TIMES = st.builds(Timestamp, seconds=st.integers(-62135596800, 253402300799), nanos=st.integers(0, 999_999_999))
INNER = st.recursive(
    st.builds(Inner, city=TEXT, numbers=st.lists(I64, max_size=2)),
    lambda inner: st.builds(Inner, city=SEGMENT, numbers=st.lists(I64, max_size=2), deeper=st.none() | inner),
    max_leaves=3,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "i64": I64,
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "u64": U64,
    "flag": st.booleans(),
    "raw": st.binary(max_size=9),
    "f64": st.floats(allow_nan=False),
    "f32": st.floats(allow_nan=False, width=32),
    "mood": st.sampled_from(list(Mood)),
    "at": TIMES,
    "within": st.builds(Duration.from_nanos, st.integers(-(10**18), 10**18)),
    "maybe": TEXT,
    "maybe_number": I64,
    "boxed": st.builds(Int64Value, value=I64),
    "boxed_text": st.builds(StringValue, value=TEXT),
    "boxed_raw": st.builds(BytesValue, value=st.binary(max_size=5)),
    "boxed_flag": st.builds(BoolValue, value=st.booleans()),
    "boxed_f64": st.builds(DoubleValue, value=st.floats(allow_nan=False)),
    "mask": st.builds(FieldMask, paths=st.lists(st.sampled_from(["a", "b.c_d"]), max_size=2)),
    "texts": st.lists(TEXT, max_size=3),
    "moods": st.lists(st.sampled_from(list(Mood)), max_size=2),
    "times": st.lists(TIMES, max_size=2),
    "inner": st.builds(Inner, city=SEGMENT, numbers=st.lists(I64, max_size=2)),
    "how": st.builds(lambda text: Oneof("card", text), TEXT) | st.builds(lambda number: Oneof("points", number), I64),
    "class_": TEXT,
}
VALUES = st.fixed_dictionaries({}, optional=FIELDS).map(lambda given_fields: Values(**given_fields))
WHOLES = st.builds(
    Whole,
    order_id=SEGMENT,
    number=I64,
    inner=st.builds(Inner, city=SEGMENT, numbers=st.lists(I64, max_size=2), deeper=st.none() | INNER),
    by_name=st.dictionaries(TEXT, TEXT, max_size=2),
    parts=st.lists(INNER, max_size=2),
    tree=st.none() | st.just(Struct.from_python({"a": [1.0, None, {"b": "c"}]})),
)
few = settings(max_examples=150, deadline=None)


def there_and_back(operation: Operation[Any, Any], message: Any, *, proto_names: bool = False) -> Any:
    """Build the request of a message, find its route and read it again."""
    route = operation.routes[0]
    target, body = build_request(route, message, proto_names=proto_names)
    path, _, text = target.partition("?")
    assert target.isascii()
    assert target.isprintable()
    match = ROUTES.find(route.method, path)
    assert match is not None
    assert match.route is route
    return read_request(route, operation.request, match.path, text, body or b"")


@few
@given(VALUES, st.booleans())
def test_every_single_value_travels_in_the_query(message: Values, proto_names: bool) -> None:
    assert there_and_back(Bound.find, message, proto_names=proto_names) == message


@few
@given(SEGMENT, I64, st.booleans(), st.sampled_from(list(Mood)), st.binary(min_size=1, max_size=9), U64)
def test_every_kind_travels_in_the_path(text: str, i64: int, flag: bool, mood: Mood, raw: bytes, u64: int) -> None:
    message = Values(text=text, i64=i64, i32=0, u32=0, u64=u64, flag=flag, raw=raw, f64=0.0, f32=0.0, mood=mood)
    assert there_and_back(Bound.at_path, message) == message


@few
@given(WHOLES, st.booleans())
def test_a_message_travels_in_path_and_body(message: Whole, proto_names: bool) -> None:
    assert there_and_back(Bound.get_inner, message, proto_names=proto_names) == message
    message.order_id = f"shops/{quote(message.order_id, safe='')}/orders/1/2"
    assert there_and_back(Bound.put_inner, message, proto_names=proto_names) == message


@few
@given(WHOLES)
def test_the_field_of_an_answer_is_the_body(message: Whole) -> None:
    body = write_answer(Bound.get_inner.routes[0], message)
    assert json.loads(body) == message_to_json_value(message).get("parts", [])
    assert read_answer(Bound.get_inner.routes[0], Whole, body).parts == message.parts


def test_one_field_is_the_body_of_a_request() -> None:
    message = Inner(city="x", numbers=[1, 2])
    assert build_request(Bound.set_inner.routes[0], message) == ("/v1/i/x", b'["1","2"]')
    assert there_and_back(Bound.set_inner, message) == message
    assert there_and_back(Bound.set_inner, Inner(city="x")) == Inner(city="x")
    deep = Inner(city="x", numbers=[1], deeper=Inner(city="y", numbers=[2], deeper=Inner(city="z")))
    assert build_request(Bound.set_inner.routes[0], deep)[0] == "/v1/i/x?deeper.city=y&deeper.numbers=2&deeper.deeper.city=z"
    assert there_and_back(Bound.set_inner, deep) == deep


def test_answer_without_its_field_is_the_zero_value() -> None:
    assert write_answer(Bound.put_inner.routes[0], Inner(city="")) == b'""'
    assert write_answer(Bound.get_inner.routes[0], Whole(order_id="", number=0)) == b"[]"
    assert read_answer(Bound.find.routes[0], Values, b"") == read_answer(Bound.find.routes[0], Values, b"{}")


def test_names_of_both_kinds_are_read() -> None:
    read = lambda text: read_request(Bound.find.routes[0], Values, {}, text, b"")  # noqa: E731 - one line, used in this test only
    assert read("maybeNumber=3&inner.city=x&inner.deeper.city=y").inner.deeper.city == "y"
    assert read("maybe_number=3").maybe_number == 3
    assert read("texts=a&texts=b%2Cc&texts=").texts == ["a", "b,c", ""]
    assert read("class=x").class_ == "x"
    assert read("mood=1").mood is Mood.GOOD
    assert read("mood=MOOD_GOOD").mood is Mood.GOOD
    assert math.isnan(read("f64=NaN").f64)
    assert read("text=a+b%20c").text == "a b c"
    assert read("raw=_-8").raw == read("raw=/%2B8=").raw


WRONG_VALUES = {
    "i64": ["", "\uff10", "x", "1.0", "1e3", "9223372036854775808", "--1", " 1", "0x1", "1_0"],
    "i32": ["2147483648", "-2147483649"],
    "u32": ["-1", "4294967296"],
    "u64": ["18446744073709551616"],
    "flag": ["", "1", "True", "yes"],
    "raw": ["a", "*", "abcd=ef", "\xff"],
    "f64": ["", "x", "1e999", "inf", "nan", "1,5", "0x1p3"],
    "f32": ["3.5e38"],
    "mood": ["", "GOOD", "good", "2147483648"],
    "at": ["", "yesterday", "2026-01-31", "2026-13-01T00:00:00Z"],
    "within": ["", "1", "1m", "s"],
    "boxed": ["", "x"],
    "boxedFlag": ["1"],
    "times": ["x"],
    "inner.numbers": ["x"],
    "points": ["x"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG_VALUES.items() for text in texts])
def test_wrong_value_names_the_parameter_but_not_the_value(name: str, text: str) -> None:
    with pytest.raises(Error) as raised:
        read_request(Bound.find.routes[0], Values, {}, urlencode({name: text}), b"")
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert raised.value.message.startswith(f"Reading the parameter '{name}' failed: give ")
    assert len(text) < 3 or text not in raised.value.message.partition("give")[0].replace(name, "")
    assert raised.value.__cause__ is None


REFUSED = {
    "unknown": ("find", {}, "nope=1", b"", "has no parameter 'nope'"),
    "odd name": ("find", {}, "%C3%A4=1", b"", "has no parameter of that name"),
    "long name": ("find", {}, f"{'x' * 200}=1", b"", "has no parameter of that name"),
    "a message": ("find", {}, "inner=x", b"", "has no parameter 'inner'"),
    "endless path": ("find", {}, f"inner{'.deeper' * 40}.city=x", b"", "has no parameter of that name"),
    "twice": ("find", {}, "text=a&text=b", b"", "'text' is given 2 times"),
    "twice by two names": ("find", {}, "maybe_number=1&maybeNumber=2", b"", "'maybe_number' is given 2 times"),
    "two of a oneof": ("find", {}, "card=a&points=2", b"", "excludes"),
    "not UTF-8": ("find", {}, "text=%FF", b"", "percent-encoded in UTF-8"),
    "too many": ("find", {}, "&".join(["texts=x"] * 1001), b"", "at most 1000 parameters"),
    "body where none belongs": ("find", {}, "", b"{}", "takes no body"),
    "query beside a whole body": ("get_inner", {"order_id": "1"}, "number=1", b"{}", "'number' is part of the body"),
    "part of the path": ("at_path", {"text": "x"}, "text=y", b"", "'text' is part of the path"),
    "field of the body": ("set_inner", {"city": "x"}, "numbers=1", b"[]", "'numbers' is part of the body"),
    "path value": ("at_path", {"i64": "x"}, "", b"", "'i64' failed: give a whole number from -9223372036854775808"),
    "body of another type": ("set_inner", {"city": "x"}, "", b"{}", "Reading 'test.binding.v1.Inner' from JSON failed"),
    "two values as the body": ("set_inner", {"city": "x"}, "", b'[1], "city": "y"', "send one JSON value"),
    "deep body": ("set_inner", {"city": "x"}, "", b"[" * 10_000, "failed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    name, path, text, body, sentence = REFUSED[case]
    operation: Operation[Any, Any] = getattr(Bound, name)
    with pytest.raises(Error) as raised:
        read_request(operation.routes[0], operation.request, path, text, body)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert sentence in raised.value.message


def test_caller_is_told_what_a_route_cannot_carry() -> None:
    values = Values(text="", i64=0, i32=0, u32=0, u64=0, flag=False, raw=b"", f64=0.0, f32=0.0, mood=Mood.UNSPECIFIED)
    with pytest.raises(Error, match="'text' does not fit into 'GET /v1/p/"):
        build_request(Bound.at_path.routes[0], values)
    held = Holder(whole=Whole(order_id="7", number=0, by_name={"a": "b"}))
    with pytest.raises(Error, match=r"cannot carry the field 'whole\.byName"):
        build_request(Bound.hold.routes[0], held)
    held = Holder(whole=Whole(order_id="7", number=0, parts=[Inner(city="x")]))
    with pytest.raises(Error, match=r"cannot carry the field 'whole\.parts"):
        build_request(Bound.hold.routes[0], held)
    with pytest.raises(Error, match="Writing a 'Inner' failed"):
        build_request(Bound.set_inner.routes[0], Inner(city=5))  # type: ignore[arg-type]
