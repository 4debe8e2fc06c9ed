"""Letters behind a missing message: which one they wait for, and when nothing is missing any more."""

from __future__ import annotations

from linkspan.envelope import Envelope
from linkspan.incoming.lane_reading import GAP, follows, sticky, waits_for
from linkspan.incoming.work import FromStore, Work
from linkspan.ports import Letter, LetterState


def letter(number: int, fingerprint: str = GAP) -> Letter:
    headers = (
        b"ce-specversion: 1.0\r\nce-type: t\r\nce-source: /s\r\nce-datacontenttype: application/protobuf\r\nce-id: %d\r\n"
        b"ce-time: 2026-01-01T00:00:00Z\r\nce-partitionkey: k\r\ntraceparent: x\r\nce-sequence: %d\r\n" % (number, number)
    )
    return Letter("shop:t", "k", "/s", str(number), "t", headers, b"x", LetterState.PARKED, fingerprint=fingerprint)


def message(number: int) -> Work:
    return Work(FromStore(letter(number)), Envelope(str(number), "/s", "t", "k", sequence=number), "k")


def test_a_letter_behind_a_gap_waits_for_each_lower_number() -> None:
    assert [waits_for(letter(5), message(number)) for number in (3, 4, 5, 6, 0)] == [True, True, False, False, False]
    assert not waits_for(letter(5, "another"), message(4))


def test_nothing_is_missing_before_the_next_number_only() -> None:
    assert [follows(letter(number), message(4)) for number in (4, 5, 6)] == [False, True, False]
    assert not follows(letter(5, "another"), message(4))


def test_the_sign_of_a_gap_outlives_what_is_noted_later() -> None:
    assert sticky(letter(5, "failed"), letter(5)).fingerprint == GAP
    assert sticky(letter(5, "failed"), letter(5, "before")).fingerprint == "failed"
