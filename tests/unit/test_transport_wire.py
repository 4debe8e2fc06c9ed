"""What both ends agree on: timeouts, addresses, errors, codecs, and the caps on what a peer may send."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest
from connectrpc.code import Code as WireCode
from connectrpc.errors import ConnectError
from hypothesis import given, settings, strategies as st
from protobuf.wkt import StringValue, Value

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.http import parse_address
from linkspan.transport.wire import (
    MAX_MESSAGE_BYTES,
    BinaryCodec,
    CappedGzip,
    JsonCodec,
    connect_error,
    error_body,
    error_from,
    format_timeout,
    http_status,
    registry_of,
)


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_timeout_is_at_most_ten_digits_never_zero_and_never_shorter(seconds: float) -> None:
    text = format_timeout(seconds)
    assert text.isascii()
    assert text.isdigit()
    assert 1 <= len(text) <= 10
    assert int(text) >= min(math.floor(seconds * 1000), 9_999_999_999)
    assert 1 <= int(text) <= max(1, seconds * 1000 + 1)


@given(st.sampled_from(Code), st.text(), st.lists(st.text(), max_size=3))
def test_error_survives_the_way_through_connectrpc(code: Code, message: str, texts: list[str]) -> None:
    error = Error(code, message, [StringValue(value=text) for text in texts])
    back = error_from(connect_error(error), registry_of(StringValue))
    assert back.code is code
    assert back.message == message or not message
    assert list(back.details) == list(error.details)


@given(st.sampled_from(Code), st.text(st.characters(codec="utf-8")))
def test_refusal_is_connect_json(code: Code, message: str) -> None:
    assert json.loads(error_body(code, message)) == {"code": code.value, "message": message}
    assert 400 <= http_status(code) < 600


def refusal(call: Any, *arguments: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        call(*arguments)
    return caught.value


def decoded(codec: BinaryCodec | JsonCodec, data: bytes) -> StringValue | ConnectError:
    try:
        return codec.decode(data, StringValue)
    except ConnectError as error:
        return error


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_coded_refusal_without_payload(data: bytes) -> None:
    for codec in (BinaryCodec(WireCode.DATA_LOSS), JsonCodec(WireCode.DATA_LOSS)):
        result = decoded(codec, data)
        if isinstance(result, ConnectError):
            assert result.code is WireCode.DATA_LOSS
            assert result.message.startswith("Reading 'google.protobuf.StringValue' from ")


def test_json_error_says_where_but_not_what() -> None:
    error = refusal(JsonCodec(WireCode.INVALID_ARGUMENT).decode, b'["secret", oops', Value)
    assert "line 1 column 12" in error.message
    assert "secret" not in error.message


DEEP = 100_000  # enough to overflow the stack of protobuf-py's JSON decoder, which would end the process


@pytest.mark.parametrize("text", [b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP, b'{"value":' + b"[" * DEEP, b'["x\\"",' * DEEP])
def test_deep_json_is_refused_before_it_is_decoded(text: bytes) -> None:
    assert "levels" in refusal(JsonCodec(WireCode.INVALID_ARGUMENT).decode, text, StringValue).message


def test_wide_json_is_not_deep() -> None:
    items = ["[[{\\", '"[', "]"] * 500
    value = JsonCodec(WireCode.INVALID_ARGUMENT).decode(json.dumps(items).encode(), Value)
    assert json.loads(value.to_json()) == items


def test_deep_check_takes_linear_time_on_quotes_that_never_close() -> None:
    hostile = b'"' + b'\\"' * 1_000_000 + b"[" * 200
    assert refusal(JsonCodec(WireCode.INVALID_ARGUMENT).decode, hostile, StringValue).code is WireCode.INVALID_ARGUMENT


def test_wrong_field_values_are_coded_without_their_content() -> None:
    wrong = StringValue(value=5)  # type: ignore[arg-type]
    for codec in (BinaryCodec(WireCode.INTERNAL), JsonCodec(WireCode.INTERNAL)):
        error = refusal(codec.encode, wrong)
        assert (error.code, "5" in error.message) == (WireCode.INVALID_ARGUMENT, False)


@given(st.binary(max_size=5000))
def test_gzip_round_trips(data: bytes) -> None:
    codec = CappedGzip()
    assert codec.decompress(codec.compress(data)) == data
    assert codec.decompress(gzip.compress(data), 5000) == data


@given(st.binary(max_size=200), st.integers(0, 400))
def test_what_is_not_one_gzip_member_is_coded(data: bytes, cut: int) -> None:
    whole = gzip.compress(data)
    for broken in (data, whole[: cut % len(whole)], whole + b"x", whole + whole):
        assert refusal(CappedGzip().decompress, broken).code in {WireCode.INVALID_ARGUMENT, WireCode.RESOURCE_EXHAUSTED}


def test_gzip_caps() -> None:
    codec = CappedGzip()
    assert len(codec.decompress(gzip.compress(b"0" * 64 * 1024))) == 64 * 1024  # small ones may be as dense as they like
    for bomb in (b"0" * 1_000_000, b"0" * (MAX_MESSAGE_BYTES + 1)):
        assert refusal(codec.decompress, gzip.compress(bomb)).code is WireCode.RESOURCE_EXHAUSTED
    assert refusal(codec.decompress, gzip.compress(b"0" * 11), 10).code is WireCode.RESOURCE_EXHAUSTED


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_an_address_or_a_setup_error(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://{text}:80"):
        try:
            address = parse_address(candidate)
        except SetupError:
            continue
        assert address.host
        assert 0 < address.port < 65536
        assert not set("\r\n ") & set(address.authority + address.prefix)


@pytest.mark.parametrize(
    ("text", "host", "port", "tls", "prefix"),
    [
        ("http://orders", "orders", 80, False, ""),
        ("https://orders/", "orders", 443, True, ""),
        ("http://[::1]:8080/api/", "::1", 8080, False, "/api"),
    ],
)
def test_address_parts(text: str, host: str, port: int, tls: bool, prefix: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.tls, address.prefix) == (host, port, tls, prefix)
