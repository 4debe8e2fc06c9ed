"""Parking: when a held message is tried again, and when it has had all its tries. Plain rules over letters; nothing is stored here."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from linkspan.desk import stack_of
from linkspan.ports import Letter, LetterState

if TYPE_CHECKING:
    from linkspan.errors import Error
    from linkspan.limits import Limits
    from linkspan.work import Work

__all__ = ["after_failure", "counted", "new_letter", "spent"]


def new_letter(place: str, work: Work, state: LetterState, error: Error | None, *, limits: Limits, now: float) -> Letter:
    """Make the letter of a message that came from the broker; `place` is its topic in the table."""
    envelope = work.envelope
    letter = Letter(
        topic=place,
        key=work.key,
        source=envelope.source,
        id=envelope.id,
        type=envelope.type,
        headers=work.delivery.headers,
        data=work.delivery.data,
        state=state,
        received=now,
    )
    if error is not None:
        letter.attempts = max(work.tries, 1 if state is LetterState.DEAD else limits.inline)
        letter.first_failed = work.first_failed or now
        note(letter, error, now)
        letter.due = now + limits.parked[0] if limits.parked else now
        if state is LetterState.PARKED and (not limits.parked or now - letter.first_failed > limits.max_age):
            letter.state = LetterState.DEAD
    return letter


def after_failure(before: Letter, tries: int, state: LetterState, error: Error | None, *, limits: Limits, now: float) -> Letter:
    """Return what becomes of a letter that failed once more; `before` stays as it is, since the store may refuse the change."""
    letter = counted(before, tries, error, limits=limits, now=now)
    too_old = now - letter.first_failed > limits.max_age
    if state is LetterState.DEAD or before.state is LetterState.REDRIVE or spent(letter, limits) or too_old:
        letter.state = LetterState.DEAD
    return letter


def counted(before: Letter, tries: int, error: Error | None, *, limits: Limits, now: float) -> Letter:
    """Return a letter with more tries, parked until the next is due."""
    letter = replace(before)
    letter.attempts += tries
    letter.redrives += before.state is LetterState.REDRIVE
    letter.first_failed = letter.first_failed or now
    if error is not None:
        note(letter, error, now)
    letter.state = LetterState.PARKED
    pauses = limits.parked
    letter.due = now + pauses[min(_rounds(letter, limits), len(pauses)) - 1] if pauses else now
    return letter


def _rounds(letter: Letter, limits: Limits) -> int:
    return -(-letter.attempts // limits.inline)


def spent(letter: Letter, limits: Limits) -> bool:
    """Tell whether a letter has had all its tries."""
    return _rounds(letter, limits) > len(limits.parked)


def note(letter: Letter, error: Error, now: float) -> None:
    """Write down what went wrong; letters with the same fingerprint failed the same way."""
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else ""
    letter.code = error.code.value
    letter.error = error.message[:500]
    letter.last_failed = now
    place = stack_of(error, 1).partition(":")[0]
    letter.fingerprint = blake2b(f"{letter.type}|{letter.code}|{cause}|{place}".encode(), digest_size=6).hexdigest()
