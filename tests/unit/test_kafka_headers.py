"""Our canonical block on Kafka: the CloudEvents binding there, the same bytes back."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from linkspan.brokers.kafka_headers import from_kafka, to_kafka
from linkspan.envelope import Envelope, prefix, read, render
from linkspan.errors import Error

MOMENT = "2026-01-01T00:00:00.000Z"
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp")), min_size=1, max_size=20)


def block(**changes: str) -> bytes:
    attributes = {"id": "1", "source": "shop", "type": "shop.Happened", "key": "k", "trace": "00-1-2-01", "time": MOMENT} | changes
    return render(prefix("shop.Happened", attributes["source"]), Envelope(**attributes))  # type: ignore[arg-type]  # texts only


def test_attributes_are_named_as_the_binding_says_and_values_are_plain_utf8() -> None:
    pairs = dict(to_kafka(block(id="ü 1", source="a shop"), 41))

    assert pairs == {
        "ce_specversion": b"1.0",
        "ce_type": b"shop.Happened",
        "ce_source": b"a shop",
        "content-type": b"application/protobuf",
        "ce_id": "ü 1".encode(),
        "ce_time": MOMENT.encode(),
        "ce_partitionkey": b"k",
        "traceparent": b"00-1-2-01",
        "ce_sequence": b"41",
    }


@given(TEXT, TEXT, st.sampled_from(["", "k", 'k"ü', "100%", "a b"]), st.sampled_from(["", "00-1-2-01"]), st.sampled_from(["", "c ü"]))
def test_a_block_comes_back_byte_for_byte(id_: str, source: str, key: str, trace: str, correlation: str) -> None:
    sent = block(id=id_, source=source, key=key, trace=trace, correlation=correlation)

    assert from_kafka(to_kafka(sent)) == sent
    assert from_kafka(to_kafka(sent, 7)) == sent + b"ce-sequence: 7\r\n"


def test_empty_attributes_stay_off_the_wire() -> None:
    assert {"ce_partitionkey", "traceparent"}.isdisjoint(dict(to_kafka(block(key="", trace=""))))


def test_foreign_headers_pass_as_they_are() -> None:
    assert from_kafka(None) == b""
    assert from_kafka([("X-Name", b"a value"), ("ce-id", b"1")]) == b"X-Name: a value\r\nce-id: 1\r\n"
    assert from_kafka([("content-type", b"application/cloudevents+json")]) == b"content-type: application/cloudevents+json\r\n"


def test_an_event_of_another_cloudevents_publisher_is_read() -> None:
    attributes = {"ce_id": b"9", "Content-Type": b"application/json", "ce_specversion": b"1.0", "ce_source": b"/ a", "ce_type": b"x.Y"}

    found = read(from_kafka(list(attributes.items())))

    assert (found.id, found.source, found.type, found.content_type) == ("9", "/ a", "x.Y", "application/json")


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), st.none() | st.binary(max_size=12)), max_size=6))
def test_whatever_the_headers_hold_each_is_one_line_of_ascii(headers: list[tuple[str, bytes | None]]) -> None:
    found = from_kafka(headers)

    lines = found.split(b"\r\n")
    assert lines[-1] == b""
    assert found.isascii()
    assert all(b": " in line and b"\n" not in line for line in lines[:-1])
    assert len(lines) - 1 >= len(headers)


def test_a_line_without_a_name_is_refused() -> None:
    with pytest.raises(Error, match="has no name"):
        to_kafka(b"nonsense\r\n")
