"""Batches before people: a tap shows what they hold, a held one says what is in it."""

from __future__ import annotations

from linkspan.batch import pack
from linkspan.cli.singly import batch_content, singly
from linkspan.ports import Letter, LetterState, Seen
from linkspan.zstd import Packer
from tests.unit.test_batch_format import TOPIC, outgoing


def seen(headers: bytes, data: bytes) -> Seen:
    return Seen(TOPIC, 7, 1.0, headers, data, 2)


def letter(headers: bytes, data: bytes) -> Letter:
    return Letter(f"mail:{TOPIC}", "k", "/orders", "b", "linkspan.batch.v1", headers, data, LetterState.DEAD)


def test_batch_is_seen_message_by_message() -> None:
    batch = pack([outgoing(1, data=b"a"), outgoing(2, data=b"b"), outgoing(3, data=b"c")], Packer(), 0.0)

    found = singly(seen(batch.headers, batch.data))

    assert [(each.data, each.sequence, each.pending) for each in found] == [(b"a", 7, 4), (b"b", 7, 3), (b"c", 7, 2)]
    assert found[1].headers == outgoing(2).headers


def test_whatever_else_is_seen_stays_as_it_is() -> None:
    batch = pack([outgoing(1), outgoing(2)], Packer(), 0.0)
    for each in (seen(outgoing(1).headers, b"a"), seen(b"\xff", b""), seen(batch.headers, batch.data[:-1])):
        assert singly(each) == [each]


def test_held_batch_says_what_is_in_it_or_why_it_cannot_be_read() -> None:
    batch = pack([outgoing(1), outgoing(2)], Packer(), 0.0)

    assert batch_content(letter(batch.headers, batch.data)).startswith("a batch of 2 messages, id-1 to id-2: ")
    assert "cut off" in batch_content(letter(batch.headers, batch.data[:-3]))
    assert batch_content(letter(outgoing(1).headers, b"")) == ""
