"""Confluent's wire format, byte by byte, and the client of a registry, over real HTTP."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from linkspan import Contract, Event, Message, field
from linkspan.brokers.kafka_framing import HEADER, Confluent, Framing, framing_of, read_path, unframed, written_path
from linkspan.brokers.kafka_registry import SchemaRegistry
from linkspan.errors import Code, Error, SetupError
from tests.kafka.registry import Registry

contract = Contract("kafka.framing.v1")
TOPIC = "kafka.framing.v1.events"


class First(Message):
    text: str = field(1)


class Second(Event):
    key: str = field(1, key=True)


@pytest.mark.parametrize(("path", "written"), [([0], "00"), ([1], "0202"), ([1, 0], "040200"), ([2, 3, 70], "06 04 06 8c01")])
def test_a_path_is_written_as_documented(path: list[int], written: str) -> None:
    assert written_path(path) == bytes.fromhex(written)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=5), st.binary(max_size=20))
def test_a_path_comes_back(path: list[int], behind: bytes) -> None:
    written = written_path(path)

    assert read_path(written + behind, 0) == (path, len(written))


def test_a_prefix_names_id_and_message() -> None:
    assert unframed(bytes.fromhex("00 00000107 0202") + b"payload", None) == (263, [1], b"payload")


def test_a_header_names_guid_and_message() -> None:
    assert unframed(b"payload", b"\x01" + bytes(range(16)) + b"\x00") == (bytes(range(16)).hex(), [0], b"payload")


@given(st.binary(max_size=30), st.none() | st.binary(max_size=30))
def test_what_is_not_framed_is_refused_and_nothing_worse(data: bytes, header: bytes | None) -> None:
    try:
        schema, path, rest = unframed(data, header)
    except ValueError:
        return
    assert (data.endswith(rest), bool(path)) == (True, True)
    assert isinstance(schema, int if header is None else str)


async def test_files_are_registered_with_what_they_import() -> None:
    with Registry() as registry:
        framing = Framing(Confluent(registry.url, {TOPIC: "prefix"}, [First, Second]))
        await framing.prepare(TOPIC)

        assert {f"{TOPIC}-kafka.framing.v1.First", f"{TOPIC}-kafka.framing.v1.Second", "linkspan/options.proto"} <= set(registry.subjects)
        (number,) = registry.subjects[f"{TOPIC}-kafka.framing.v1.Second"]
        assert base64.b64decode(registry.schemas[number - 1]["schema"]) == Second.desc().file.proto.to_binary()
        _, data = framing.frame(TOPIC, [("ce_type", b"kafka.framing.v1.Second")], b"payload")
        place = [each.type_name for each in Second.desc().file.messages].index("kafka.framing.v1.Second")
        assert unframed(data, None) == (number, [place], b"payload")


async def test_a_header_carries_the_guid() -> None:
    with Registry() as registry:
        framing = Framing(Confluent(registry.url, {TOPIC: "header"}, [First]))
        await framing.prepare(TOPIC)

        headers, data = framing.frame(TOPIC, [("ce_type", b"kafka.framing.v1.First")], b"payload")

        schema, _, _ = unframed(data, dict(headers)[HEADER])
        assert data == b"payload"
        assert SchemaRegistry(registry.url).file(schema).package == "kafka.framing.v1"


async def test_a_registry_without_guids_serves_prefixes_only() -> None:
    with Registry(guids=False) as registry:
        with pytest.raises(SetupError, match="prefix"):
            await Framing(Confluent(registry.url, {TOPIC: "header"}, [First])).prepare(TOPIC)
        await Framing(Confluent(registry.url, {TOPIC: "prefix"}, [First])).prepare(TOPIC)


def test_a_type_without_a_schema_is_refused() -> None:
    framing = Framing(Confluent("http://127.0.0.1:1", {TOPIC: "prefix"}))

    with pytest.raises(Error, match=r"messages=") as caught:
        framing.frame(TOPIC, [("ce_type", b"x.Y")], b"")
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(("status", "kind"), [(401, SetupError), (403, SetupError), (409, Error), (422, Error), (500, Error), (503, Error)])
def test_a_refusal_says_what_to_do(status: int, kind: type[Exception]) -> None:
    with Registry() as registry:
        registry.status = status
        with pytest.raises(kind, match=r": [a-z ]+"):
            SchemaRegistry(registry.url).register("s", First.desc().file)


def test_a_registry_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Error) as caught:
        SchemaRegistry("http://127.0.0.1:1").file(1)
    assert caught.value.code is Code.UNAVAILABLE


def test_an_unknown_schema_is_not_found() -> None:
    with Registry() as registry, pytest.raises(Error) as caught:
        SchemaRegistry(registry.url).file(77)
    assert caught.value.code is Code.NOT_FOUND


def test_a_login_goes_into_a_header_and_nowhere_else() -> None:
    with Registry() as registry:
        with pytest.raises(Error) as caught:
            SchemaRegistry(registry.url.replace("//", "//me:s3cret@")).file(77)
        assert registry.authorization == "Basic " + base64.b64encode(b"me:s3cret").decode()
        assert "s3cret" not in str(caught.value) + str(registry.asked)


@pytest.mark.parametrize("wrong", [Confluent("ftp://x", {}), Confluent("http://x", {"t": "suffix"}), {"registry": "http://x"}])
def test_a_wrong_framing_is_refused_at_start(wrong: object) -> None:
    with pytest.raises(SetupError):
        framing_of(wrong)
