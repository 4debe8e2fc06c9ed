"""Whatever bytes come in, the decoders return a message or raise the one documented error."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st
from protobuf import ScalarType

from linkspan.contract import Contract
from linkspan.errors import Code, Error
from linkspan.message import (
    Duration,
    Enum,
    Fixed64,
    Float32,
    Int32,
    Message,
    Oneof,
    SInt64,
    Timestamp,
    UInt32,
    UInt64,
    decode,
    decode_json,
    field,
    mapping,
    oneof,
    redacted,
    repeated,
)
from linkspan.nesting import too_deep

contract = Contract("test.properties.v1")


class Mood(Enum):
    UNSPECIFIED = 0
    GOOD = 1
    BAD = -1


class Part(Message):
    text: str = field(1)
    number: SInt64 = field(2)
    parts: list[Part] = repeated(3)


class Whole(Message):
    text: str = field(1, default="")
    raw: bytes = field(2, default=b"")
    flag: bool = field(3, default=False)
    i64: int = field(4, default=0)
    f64: float = field(5, default=0.0)
    i32: Int32 = field(6, default=0)
    u32: UInt32 = field(7, default=0)
    u64: UInt64 = field(8, default=0)
    x64: Fixed64 = field(9, default=0)
    f32: Float32 = field(10, default=0.0)
    mood: Mood = field(11, default=Mood.UNSPECIFIED)
    maybe_text: str | None = field(12, default=None)
    maybe_number: int | None = field(13, default=None)
    maybe_mood: Mood | None = field(14, default=None)
    part: Part | None = field(15, default=None)
    at: Timestamp | None = field(16, default=None)
    within: Duration | None = field(17, default=None)
    texts: list[str] = repeated(18)
    numbers: list[Int32] = repeated(19)
    parts: list[Part] = repeated(20)
    moods: list[Mood] = repeated(21)
    by_name: dict[str, Part] = mapping(22)
    by_number: dict[int, str] = mapping(23)
    by_flag: dict[bool, float] = mapping(24)
    how: Oneof[Literal["part_case"], Part] | Oneof[Literal["text_case"], str] | Oneof[Literal["flag_case"], bool] | None = oneof(
        part_case=25, text_case=26, flag_case=27
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
I32 = st.integers(-(2**31), 2**31 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)
F64 = st.floats(allow_nan=False)
F32 = st.floats(allow_nan=False, width=32)
MOOD = st.sampled_from(list(Mood))
PARTS = st.recursive(
    st.builds(Part, text=TEXT, number=I64),
    lambda inner: st.builds(Part, text=TEXT, number=I64, parts=st.lists(inner, max_size=2)),
    max_leaves=4,
)
TIMES = st.builds(Timestamp, seconds=st.integers(-62135596800, 253402300799), nanos=st.integers(0, 999_999_999))
SPANS = st.builds(Duration.from_nanos, st.integers(-(10**18), 10**18))
HOW = st.one_of(
    st.none(),
    st.builds(lambda part: Oneof("part_case", part), PARTS),
    st.builds(lambda text: Oneof("text_case", text), TEXT),
    st.builds(lambda flag: Oneof("flag_case", flag), st.booleans()),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "raw": st.binary(max_size=20),
    "flag": st.booleans(),
    "i64": I64,
    "f64": F64,
    "i32": I32,
    "u32": st.integers(0, 2**32 - 1),
    "u64": U64,
    "x64": U64,
    "f32": F32,
    "mood": MOOD,
    "maybe_text": st.none() | TEXT,
    "maybe_number": st.none() | I64,
    "maybe_mood": st.none() | MOOD,
    "part": st.none() | PARTS,
    "at": st.none() | TIMES,
    "within": st.none() | SPANS,
    "texts": st.lists(TEXT, max_size=3),
    "numbers": st.lists(I32, max_size=3),
    "parts": st.lists(PARTS, max_size=2),
    "moods": st.lists(MOOD, max_size=3),
    "by_name": st.dictionaries(TEXT, PARTS, max_size=2),
    "by_number": st.dictionaries(I64, TEXT, max_size=2),
    "by_flag": st.dictionaries(st.booleans(), F64, max_size=2),
    "how": HOW,
}
WHOLES = st.fixed_dictionaries({}, optional=FIELDS).map(lambda given_fields: Whole(**given_fields))
NAMES = st.sampled_from([found.json_name for found in Whole.desc().fields]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | I64 | F64 | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
few = settings(max_examples=150, deadline=None)


def read_or_error(read: Any, data: Any) -> Message | None:
    try:
        message = read(Whole, data)
    except Error as raised:
        error = raised
    else:
        assert isinstance(message, Whole)
        assert redacted(message).startswith("Whole(")
        return message
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message.startswith("Message 'test.properties.v1.Whole' could not be decoded")
    assert len(error.message) < 150
    return None


@few
@given(WHOLES)
def test_message_survives_every_way(message: Whole) -> None:
    for again in (
        decode(Whole, message.to_binary()),
        decode_json(Whole, message.to_json(), ignore_unknown_fields=False),
        pickle.loads(pickle.dumps(message)),
        copy.copy(message),
        copy.deepcopy(message),
    ):
        assert again == message
        assert Whole.from_binary(again.to_binary()) == message
        assert (again.maybe_text, again.maybe_number, again.maybe_mood) == (message.maybe_text, message.maybe_number, message.maybe_mood)


@few
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_the_error(data: bytes) -> None:
    message = read_or_error(decode, data)
    if message is not None:
        assert read_or_error(decode, message.to_binary()) == message


@few
@given(WHOLES, st.data())
def test_damaged_messages_are_a_message_or_the_error(message: Whole, data: st.DataObject) -> None:
    damaged = bytearray(message.to_binary())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    read = read_or_error(decode, bytes(damaged))
    if read is not None:
        assert read_or_error(decode, read.to_binary()) == read


@few
@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_text_is_a_message_or_the_error(text: bytes | str) -> None:
    read_or_error(decode_json, text)


@few
@given(JSON)
def test_any_json_is_a_message_or_the_error(value: Any) -> None:
    import json

    message = read_or_error(decode_json, json.dumps(value))
    if message is not None:  # compared after one way through, which cuts Float32 fields to 32 bits
        read = read_or_error(decode, message.to_binary())
        assert read is not None
        assert read_or_error(decode, read.to_binary()) == read


@few
@given(WHOLES, st.data())
def test_damaged_json_is_a_message_or_the_error(message: Whole, data: st.DataObject) -> None:
    text = message.to_json()
    at = data.draw(st.integers(0, len(text)))
    read_or_error(decode_json, text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :])


def test_every_scalar_of_proto3_is_among_the_declared_kinds() -> None:
    from linkspan import fields

    declared = {getattr(fields, name).__metadata__[0] for name in fields.__all__ if hasattr(getattr(fields, name), "__metadata__")}
    plain = {ScalarType.STRING, ScalarType.BYTES, ScalarType.BOOL, ScalarType.INT64, ScalarType.DOUBLE}
    assert declared | plain == set(ScalarType)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, '"' + "[" * 1000])
def test_deep_json_is_refused_before_the_decoder_sees_it(text: str) -> None:
    with pytest.raises(Error) as caught:
        decode_json(Timestamp, text)

    assert caught.value.code is Code.INVALID_ARGUMENT


def test_brackets_in_strings_do_not_count() -> None:
    assert not too_deep('{"a": "' + "[{" * 500 + '\\" ]"}')
    assert too_deep('{"a": ' + "[" * 202)
    assert not too_deep("[" * 200 + "]" * 200 + "," + "[" * 200)
