"""What a batch is on the wire: what goes in comes out, and whatever else comes in costs an error, not memory."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from linkspan import Batches, Code, Error, SetupError
from linkspan.batch import BATCH, FREE, MAX_EVENTS, is_batch, joined, pack, singles
from linkspan.envelope import Envelope, lane_of, prefix, read, render
from linkspan.ports import Outgoing
from linkspan.zstd import Packer, dictionary_id, train, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

TOPIC = "test.v1.events"


def outgoing(number: int, *, kind: str = "Placed", key: str = "k", data: bytes = b"\x0a\x01x", sequence: int = 0) -> Outgoing:
    envelope = Envelope(f"id-{number}", "/orders", f"test.v1.{kind}", key, "00-aa-bb-01", "2026-11-22T10:00:00.000Z")
    headers = render(prefix(f"test.v1.{kind}", "/orders"), envelope)
    return Outgoing(TOPIC, kind, lane_of(key), f"id-{number}", key, headers, data, sequence)


def content(*, version: int = 1, heads: Sequence[bytes] = (b"h",), which: Sequence[int] = (0,), rests: Sequence[bytes] = (b"r",)) -> bytes:
    """Write the columns by hand, each message with the body `b`."""
    count = len(rests)
    table = struct.pack(f"<{len(heads)}H{len(which)}H{count}I{count}I", *map(len, heads), *which, *map(len, rests), *[1] * count)
    return struct.pack("<BBHI", version, 0, len(heads), count) + table + b"".join((*heads, *rests)) + b"b" * count


def packed(raw: bytes) -> bytes:
    return Packer().packed(raw)


GOOD = packed(content())


@given(
    st.lists(
        st.tuples(st.sampled_from(["Placed", "Cancelled"]), st.text(max_size=20), st.binary(max_size=300), st.integers(0, 9)),
        min_size=1,
        max_size=40,
    )
)
def test_messages_come_out_as_they_went_in(given_: list[tuple[str, str, bytes, int]]) -> None:
    messages = [
        outgoing(number, kind=kind, key=key, data=data, sequence=sequence) for number, (kind, key, data, sequence) in enumerate(given_)
    ]
    batch = pack(messages, Packer(), 0.0)

    found = singles(batch.data)

    assert [single.data for single in found] == [message.data for message in messages]
    for single, message in zip(found, messages, strict=True):
        sequence = b"ce-sequence: %d\r\n" % message.sequence if message.sequence else b""
        assert single.headers == message.headers + sequence
        assert single.envelope is None or single.envelope == read(single.headers)
    assert is_batch(read(batch.headers).content_type)


@pytest.mark.parametrize("key", ["k", "key-7", "a/b:c", "k 1", "ü", "k" * 513])
def test_attributes_are_read_by_the_way_or_as_those_of_a_single_message(key: str) -> None:
    (plain,) = singles(pack([outgoing(1, sequence=3)], Packer(), 0.0).data)
    assert plain.envelope == read(plain.headers)

    _, other = singles(pack([outgoing(1), outgoing(2, key=key)], Packer(), 0.0).data)
    assert (other.envelope is None) == (key in {"k 1", "ü", "k" * 513})


@pytest.mark.parametrize("line", ["ce-time: \x01", "ce-expirytime: 2026-11-22T10:00:00Z", "ce-time: \n"])
def test_what_a_single_message_is_refused_for_is_not_let_through_in_a_batch(line: str) -> None:
    odd = outgoing(1).headers.replace(b"ce-time: 2026-11-22T10:00:00.000Z", line.encode())
    (single,) = singles(pack([Outgoing(TOPIC, "Placed", 0, "1", "k", odd, b"")], Packer(), 0.0).data)

    assert single.envelope is None
    assert single.headers == odd


def test_a_block_without_the_usual_order_is_kept_as_it_is() -> None:
    strange = [Outgoing(TOPIC, "X", 3, str(number), "k", b"x: 1\r\nce-id: 7\r\n", b"d") for number in range(2)]
    strange.append(Outgoing(TOPIC, "X", 3, "9", "k", b"y: " + b"z" * 9_000 + b"\r\nce-id: 9\r\n", b"d"))

    assert [single.headers for single in singles(pack(strange, Packer(), 0.0).data)] == [message.headers for message in strange]


def test_the_same_messages_give_the_same_id_and_other_ones_another() -> None:
    first, again = (pack([outgoing(1), outgoing(2)], Packer(), now) for now in (0.0, 99.0))

    assert first.id == again.id
    assert pack([outgoing(2), outgoing(1)], Packer(), 0.0).id != first.id
    assert (first.lane, first.key, first.name) == (lane_of("k"), "", "batch")
    found = read(first.headers)
    assert (found.id, found.source, found.content_type) == (first.id, "/orders", BATCH)


def test_what_is_alike_costs_little() -> None:
    messages = [outgoing(number, key=f"key-{number}", data=b"x" * 150 + str(number).encode()) for number in range(100)]

    assert len(pack(messages, Packer(), 0.0).data) < sum(len(message.headers) + len(message.data) for message in messages) / 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no zstd frame"),
        (b"\x00" * 40, "no zstd frame"),
        (GOOD[:-2], "cut off"),
        (GOOD[:12], "cut off"),
        (GOOD + b"more", "something follows"),
        (GOOD + GOOD, "something follows"),
        (GOOD[:-6] + bytes([GOOD[-6] ^ 1]) + GOOD[-5:], "damaged"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "damaged"),
        (packed(b""), "version"),
        (packed(content(version=2)), "version that is not known"),
        (packed(b"\x01"), "do not fit"),
        (packed(content()[:-1]), "do not fit"),
        (packed(content() + b"b"), "do not fit"),
        (packed(content(which=(1,))), "do not fit"),
        (packed(content(heads=(), which=(0,))), "do not fit"),
        (packed(content(heads=(b"h", b"h"))), "do not fit"),
        (packed(content(heads=(b"h" * 5_000,))), "do not fit"),
        (packed(struct.pack("<BBHI", 1, 0, 0, 0)), "do not fit"),
        (packed(struct.pack("<BBHI", 1, 0, 65_535, 2**32 - 1)), "do not fit"),
        (packed(struct.pack("<BBHI", 1, 7, 1, 1) + content()[8:]), "do not fit"),
        (packed(content(which=[0] * (MAX_EVENTS + 1), rests=[b"r"] * (MAX_EVENTS + 1))), "do not fit"),
    ],
)
def test_what_is_no_batch_is_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(Error, match=words) as raised:
        singles(data)

    assert raised.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("told", [True, False], ids=["size told", "size hidden"])
def test_a_bomb_costs_no_more_than_its_cap(told: bool) -> None:
    bomb = packed(b"\0" * (64 << 20)) if told else stream(64 << 20)
    assert len(bomb) < 10_000
    singles(GOOD)  # what is loaded once is not counted
    tracemalloc.start()

    with pytest.raises(Error, match=f"more than {FREE} bytes"):
        singles(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * FREE


def stream(size: int) -> bytes:
    """Compress zeros without saying how many."""
    compressor = Packer()._compressor
    pieces = [compressor.compress(b"\0" * (1 << 20)) for _ in range(size >> 20)]
    return b"".join([*pieces, compressor.flush()])


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    zstd = pytest.importorskip("backports.zstd", reason="not run: Python 3.14 has another module for it")
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 27, parameter.compression_level: 1})
    data = compressor.compress(b"x", mode=compressor.CONTINUE) + compressor.compress(b"y" * 1000) + compressor.flush()

    with pytest.raises(Error, match="no zstd frame"):
        unpacked(data, FREE)


def order(number: int) -> Outgoing:
    return outgoing(number, key=f"customer-{number * 7}", data=b"order %d of customer %d, by express" % (number, number * 7))


def test_a_dictionary_makes_small_batches_smaller_and_is_named_where_it_is_missing() -> None:
    dictionary, older = (train([joined([order(number), order(number + 1)]) for number in range(500)], size) for size in (4_000, 2_000))
    messages = [order(7), order(8)]
    batch = pack(messages, Packer(dictionary), 0.0)

    with pytest.raises(Error, match=f"needs the zstd dictionary {dictionary_id(dictionary)}") as raised:
        singles(batch.data, [older])

    assert raised.value.code is Code.FAILED_PRECONDITION
    assert [single.data for single in singles(batch.data, [older, dictionary])] == [message.data for message in messages]
    assert len(batch.data) < len(pack(messages, Packer(), 0.0).data) / 2


def test_what_is_no_dictionary_is_refused() -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        dictionary_id(b"zzzz" * 20)
    with pytest.raises(SetupError, match="collect more"):
        train([b"a"], 1_000)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_whatever_is_packed_is_read_or_refused(raw: bytes) -> None:
    for data in (raw, packed(raw), packed(b"\x01" + raw), packed(b"\x01\x00" + raw)):
        with suppress(Error):
            assert len(singles(data)) <= MAX_EVENTS


@settings(max_examples=300)
@given(st.integers(0), st.integers(0, 255), st.binary(max_size=3))
def test_a_changed_batch_is_read_or_refused(place: int, value: int, piece: bytes) -> None:
    raw = bytearray(content(heads=(b"h1", b"h2"), which=(0, 1, 1), rests=(b"r", b"", b"rr")))
    place %= len(raw)
    raw[place] = value
    raw[place:place] = piece
    with suppress(Error):
        assert len(singles(packed(bytes(raw)))) <= MAX_EVENTS


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"topics": "a.v1.events"}, "write topics="),
        ({"topics": ["a.v1"]}, "no topic"),
        ({"events": 0}, "1 to 1000"),
        ({"events": 1001}, "1 to 1000"),
        ({"size": 2 << 20}, "at most"),
        ({"size": 0}, "at most"),
    ],
)
def test_wrong_settings_are_refused_at_start(settings_: dict[str, object], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        Batches(**settings_)  # type: ignore[arg-type]  # wrong on purpose
