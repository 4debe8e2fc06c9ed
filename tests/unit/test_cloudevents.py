"""CloudEvents from anybody: binary and structured mode, with every rule that an attribute has, and what hostile ones meet."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from linkspan import Code, Error
from linkspan.content import decode_content
from linkspan.envelope import Envelope, lane_of, moment, prefix, read, render
from linkspan.ports import LetterState
from tests.unit.durable import Placed, until
from tests.unit.test_durable_path import has_effects, outgoing, system

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-1138"
TYPE = "durable.test.v1.Placed"
STRUCTURED = b"content-type: application/cloudevents+json; charset=utf-8\r\n"
WANTED = Placed(order="k", number=7)


def binary(*, without: str = "", **more: str) -> bytes:
    """Return the headers that a foreign publisher may send."""
    named = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": TYPE, "ce-partitionkey": "k"}
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    return "".join(f"{name}: {value}\r\n" for name, value in named.items() if name != without).encode()


def structured(*, without: str = "", **more: Any) -> bytes:
    """Return a whole event."""
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": TYPE, "partitionkey": "k", **more}
    return json.dumps({name: value for name, value in event.items() if name != without}).encode()


def refused(headers: bytes, data: bytes = b"") -> str:
    """Take a message as a consumer does; return what it is refused with."""
    with pytest.raises(Error) as caught:
        decode_content(Placed, data, read(headers, data).content_type)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert CANARY not in caught.value.message
    return caught.value.message


# --- binary mode


def test_http_style_headers_are_read() -> None:
    """The form that the CloudEvents SDKs write: any case, the content type beside the attributes, quoted values, blanks encoded."""
    headers = (
        'Ce-Specversion: 1.0\r\nCE-ID: "quoted \\"id\\""\r\nCe-Source: /caf%C3%A9\r\nCe-Type: t\r\nCe-Partitionkey: a%20b\r\n'
        "Traceparent: 00-1-2-01\r\nCe-Time: 2026-11-22T10:00:00+01:00\r\nContent-Type: application/json; charset=UTF-8\r\n"
    )
    assert read(headers.encode()) == Envelope(
        'quoted "id"', "/café", "t", "a b", "00-1-2-01", "2026-11-22T10:00:00+01:00", content_type="application/json; charset=UTF-8"
    )


def test_optional_attributes_may_be_missing() -> None:
    envelope = read(binary(without="ce-partitionkey"))
    assert (envelope.key, envelope.time, envelope.trace, envelope.sequence) == ("", "", "", 0)


def test_content_type_of_the_binding_goes_before_the_one_of_http() -> None:
    headers = binary(ce_datacontenttype="application/json", content_type="text/plain")
    assert decode_content(Placed, b'{"order":"k","number":"7"}', read(headers).content_type) == WANTED


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("application/protobuf", WANTED.to_binary()),
        ("application/protobuf; charset=binary", WANTED.to_binary()),
        ("Application/X-Protobuf", WANTED.to_binary()),
        ("application/json", b'{"order":"k","number":7}'),
        ("application/json; charset=utf-8", b'{"order":"k","number":"7"}'),
        ("application/vnd.shop+json", b'{"order":"k","number":7}'),
        ("application/msgpack", msgspec.msgpack.encode({"order": "k", "number": 7})),
    ],
)
def test_data_is_read_by_its_content_type(content_type: str, data: bytes) -> None:
    assert decode_content(Placed, data, read(binary(content_type=content_type)).content_type) == WANTED


def test_own_block_with_encoded_values_is_read_back() -> None:
    envelope = Envelope("an id", "/café", TYPE, 'k "é" %', "", "2026-11-22T10:00:00.000Z", "wäre", "")
    assert read(render(prefix(TYPE, "/café"), envelope)) == envelope


HOSTILE_HEADERS: dict[str, tuple[bytes, str]] = {
    **{f"no {name}": (binary(without=f"ce-{name}"), f"no '{name}' attribute") for name in ("id", "source", "type", "specversion")},
    "empty id": (binary(ce_id=""), "no 'id' attribute"),
    "version": (binary(ce_specversion=f"0.3{CANARY}"), "unknown CloudEvents version"),
    "line break in an id": (binary(ce_id=f"{CANARY}%0D%0Ace-type: x"), "'id' holds a control character"),
    "null in a key": (binary(ce_partitionkey=f"{CANARY}%00"), "'partitionkey' holds a control character"),
    "delete in an extension": (binary(ce_anything=f"{CANARY}%7F"), "'anything' holds a control character"),
    "no UTF-8": (binary(ce_id=f"{CANARY}%FF"), "not as UTF-8"),
    "surrogate": (binary(ce_id=f"{CANARY}%ED%A0%80"), "not as UTF-8"),
    "raw UTF-8": (binary(ce_id=f"{CANARY}é"), "not ASCII"),
    "long id": (binary(ce_id=CANARY * 60), "'id' has more than 512"),
    "long key": (binary(ce_partitionkey=CANARY * 60), "'partitionkey' has more than 512"),
    "long correlation": (binary(ce_correlationid=CANARY * 60), "'correlationid' has more than 512"),
    "huge headers": (binary(ce_x=CANARY * 2000), "at most 16384"),
    "time": (binary(ce_time=CANARY), "'time' is no time"),
    "expiry": (binary(ce_expirytime=CANARY), "'expirytime' is no time"),
    "expiry without a zone": (binary(ce_expirytime="2026-11-22T10:00:00"), "'expirytime' is no time"),
    "expiry on no day": (binary(ce_expirytime="2026-02-30T10:00:00Z"), "'expirytime' is no time"),
    "own block with a bad expiry": (
        render(prefix(TYPE, "/x"), Envelope("1", "/x", TYPE, "k", time="2026-11-22T10:00:00.000Z", expires="soon")),
        "'expirytime' is no time",
    ),
    "own block with a control character": (
        render(prefix(TYPE, "/x"), Envelope("1\r\n", "/x", TYPE, "k", time="2026-11-22T10:00:00.000Z")),
        "control character",
    ),
    "own block with a control character in its source": (
        render(prefix(TYPE, "/x\n"), Envelope("1", "/x", TYPE, "k", time="2026-11-22T10:00:00.000Z")),
        "'source' holds a control character",
    ),
    "own block with a raw control character": (
        render(prefix(TYPE, "/x"), Envelope("X", "/x", TYPE, "k", time="2026-11-22T10:00:00.000Z")).replace(b"X", b"\x01"),
        "'id' holds a control character",
    ),
    "content type": (binary(content_type=f"text/{CANARY}"), "cannot be decoded"),
    "nothing": (b"", "no 'id' attribute"),
    "batch": (b"content-type: application/cloudevents-batch+json\r\n", "neither batches nor other formats"),
    "other format": (b"content-type: application/cloudevents+xml\r\n", "neither batches nor other formats"),
}


@pytest.mark.parametrize(("headers", "sentence"), HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
def test_hostile_headers_are_refused_by_name_and_without_their_value(headers: bytes, sentence: str) -> None:
    assert sentence in refused(headers)


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(block: bytes, data: bytes) -> None:
    for headers in (block, STRUCTURED, STRUCTURED + block):
        try:
            decode_content(Placed, data, read(headers, data).content_type)
        except Error as error:
            assert error.code is Code.INVALID_ARGUMENT  # noqa: PT017 - it may pass as well


# --- structured mode


@pytest.mark.parametrize(
    "given_data",
    [
        {"data": {"order": "k", "number": 7}},
        {"data": {"order": "k", "number": "7"}, "datacontenttype": "application/json"},
        {"data": {"order": "k", "number": 7}, "datacontenttype": "application/protobuf"},
        {"data": {"order": "k", "number": 7}, "datacontenttype": None, "data_base64": None},
        {"data_base64": base64.b64encode(WANTED.to_binary()).decode()},
        {"data_base64": base64.b64encode(WANTED.to_binary()).decode(), "datacontenttype": "application/protobuf"},
        {"data_base64": base64.b64encode(b'{"order":"k","number":7}').decode(), "datacontenttype": "application/json"},
    ],
    ids=["JSON", "told JSON", "protobuf as JSON", "nulls", "Base64", "told Base64", "JSON in Base64"],
)
def test_structured_data_is_read(given_data: dict[str, Any]) -> None:
    data = structured(**given_data)
    assert decode_content(Placed, data, read(STRUCTURED, data).content_type) == WANTED


def test_structured_event_without_data_is_an_empty_message() -> None:
    data = structured()
    assert decode_content(Placed, data, read(STRUCTURED, data).content_type) == Placed()


def test_structured_attributes_are_read_whatever_their_json_type() -> None:
    data = structured(
        id="ä b", time="2026-11-22t10:00:00.5z", sequence=12, correlationid="c", causationid=True, traceparent="00-1-2-01", unknown=False
    )
    assert read(STRUCTURED, data) == Envelope(
        "ä b", "/x", TYPE, "k", "00-1-2-01", "2026-11-22t10:00:00.5z", "c", "true", "", 12, "application/cloudevents+json"
    )


HOSTILE_EVENTS: dict[str, tuple[bytes, str]] = {
    **{f"no {name}": (structured(without=name), f"no '{name}' attribute") for name in ("id", "source", "type", "specversion")},
    "null id": (structured(id=None), "no 'id' attribute"),
    "empty": (b"", "no JSON object"),
    "no JSON": (CANARY.encode(), "no JSON object"),
    "list": (b"[]", "no JSON object"),
    "no UTF-8": (b'{"id":"' + CANARY.encode() + b'\xff"}', "no JSON object"),
    "trailing": (structured() + b"{}", "no JSON object"),
    "deep": (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON object"),
    "deep and open": (b'{"id":' + b"[" * 100_000, "no JSON object"),
    "huge": (structured(data={"note": "x" * 4_200_000}), "send at most 4194304"),
    "many attributes": (structured(**{f"a{number}": CANARY for number in range(2000)}), "more than 16384 bytes"),
    "long attribute": (structured(other=CANARY * 2000), "more than 16384 bytes"),
    "name": (structured(**{f"X-{CANARY}": "1"}), "name is not of a-z and 0-9"),
    "object": (structured(id={"a": CANARY}), "'id' is no text"),
    "list as attribute": (structured(source=[CANARY]), "'source' is no text"),
    "fraction": (structured(sequence=1.5), "'sequence' is no text"),
    "large number": (structured(sequence=2**31), "'sequence' is no text"),
    "control character": (structured(id=f"{CANARY}\n"), "'id' holds a control character"),
    "noncharacter": (structured(id=f"{CANARY}\uffff"), "'id' holds a control character"),
    "surrogate": (b'{"id":"\\ud800"}', "no JSON object"),
    "long id": (structured(id=CANARY * 60), "'id' has more than 512"),
    "time": (structured(time=CANARY), "'time' is no time"),
    "both data": (structured(data={}, data_base64=""), "both 'data' and 'data_base64'"),
    "no Base64": (structured(data_base64=f"{CANARY}!"), "no Base64 text"),
    "Base64 of no text": (structured(data_base64=7), "no Base64 text"),
    "Base64 beyond ASCII": (structured(data_base64="é"), "no Base64 text"),
    "text data": (structured(data=CANARY, datacontenttype="text/plain"), "JSON data of another content type"),
    "event in Base64": (structured(data_base64="e30=", datacontenttype="application/cloudevents+json"), "cannot be decoded"),
    "wrong data": (structured(data={"number": CANARY}), "could not be decoded"),
    "list as data": (structured(data=[CANARY]), "could not be decoded"),
    "wrong bytes": (structured(data_base64="////"), "could not be decoded"),
}


@pytest.mark.parametrize(("data", "sentence"), HOSTILE_EVENTS.values(), ids=HOSTILE_EVENTS.keys())
def test_hostile_event_is_refused_by_name_and_without_its_value(data: bytes, sentence: str) -> None:
    assert sentence in refused(STRUCTURED, data)


def test_brackets_in_a_text_are_not_nesting() -> None:
    assert read(STRUCTURED, structured(id="[" * 400)).id == "[" * 400


@pytest.mark.parametrize("data", [b"\xc1", b"\x93", b"\x81\xa1a\xc7\x01\x05x", b"\x91" * 100_000, b""])
def test_hostile_messagepack_is_refused(data: bytes) -> None:
    assert "could not be decoded" in refused(binary(content_type="application/msgpack"), data)


# --- times


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)), st.integers(-1439, 1439))  # noqa: DTZ001 - zones are made below
def test_moments_are_the_same_in_every_zone(at: datetime, minutes: int) -> None:
    zoned = at.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert moment(zoned.isoformat()) == pytest.approx(at.replace(tzinfo=UTC).timestamp(), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t01:00:00+01:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T00:00:00.123456789z", 0.123456789),
        ("2016-12-31T23:59:60Z", 1483228800),
    ],
)
def test_moment_is_read_as_rfc_3339_says(text: str, seconds: float) -> None:
    assert moment(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["", "1970", "1970-01-01 00:00:00Z", "1970-01-01T24:00:00Z", "1970-01-01T00:00:61Z", "1970-01-01T00:00:00"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(Error, match="'expirytime' is no time"):
        moment(text)


# --- on consumption


async def test_event_of_either_mode_is_handled_once(tmp_path: Path) -> None:
    data = structured(data={"order": "k", "number": 1})
    async with system(tmp_path) as run:
        for _ in range(2):
            await run.broker.publish(outgoing(run, STRUCTURED, data, "k"))
        await run.broker.publish(outgoing(run, binary(ce_id="2", content_type="application/json"), b'{"order":"k","number":2}', "k"))
        await has_effects(run, 2)
        await until(lambda: run.mail.counts.duplicates == 1, "the copy is known")
        assert await run.effects() == [("k", 1), ("k", 2)]


async def test_hostile_event_is_a_dead_letter_as_it_came_and_harms_nobody(tmp_path: Path) -> None:
    data = structured(data={"number": CANARY})
    async with system(tmp_path) as run:
        await run.broker.publish(outgoing(run, STRUCTURED, data, "k"))
        await run.publish(("good", 1))
        await has_effects(run, 1)
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()
        assert (letter.state, letter.id, letter.type, letter.headers, letter.data) == (LetterState.DEAD, "1", TYPE, STRUCTURED, data)
        assert CANARY not in letter.error


async def test_expiry_is_a_moment_whatever_its_zone_and_fraction(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        now = datetime.fromtimestamp(run.clock.now(), UTC)
        west, east = timezone(timedelta(hours=-11)), timezone(timedelta(hours=11))
        soon, past = now + timedelta(seconds=60), now - timedelta(seconds=1)
        texts = {
            "1": soon.astimezone(west).isoformat(),
            "2": past.astimezone(east).isoformat(),
            "3": soon.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "4": past.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for id_, text in texts.items():
            headers = binary(ce_id=id_, ce_partitionkey=f"k{id_}", ce_expirytime=text.replace("+", "%2B"), content_type="application/json")
            await run.broker.publish(outgoing(run, headers, f'{{"order":"k{id_}"}}'.encode(), f"k{id_}"))
        await has_effects(run, 2)
        await until(lambda: run.mail.counts.expired == 2, "two have expired")
        assert sorted(await run.effects("select key from effect")) == [("k1",), ("k3",)]


def test_lanes_are_those_of_the_check_value_of_crc_32_for_ever() -> None:
    """Others compute lanes, too, and a key that changed its lane would be read by two instances."""
    assert lane_of("123456789") == 0xCBF43926 % 64
    assert lane_of("") == 0
