"""Parking: when a held message is tried again, and when it has had all its tries. Plain rules over letters; nothing is stored here."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error
from linkspan.letters.desk import stack_of
from linkspan.ports import Letter, LetterState

if TYPE_CHECKING:
    from linkspan.incoming.work import Work
    from linkspan.limits import Limits

__all__ = ["after_failure", "blamed", "buried", "counted", "ended_process", "new_letter", "spent", "suspected"]

ENDED = "Its process ended "
"""How the error of a letter begins that was being handled when its process died."""
TOGETHER = f"{ENDED}while it and others were being handled."
ALONE = f"{ENDED}while it alone was being handled."
EACH_TIME = f"{ENDED}each time that it was handled: find what ends it (memory, native code, a kill) before you redrive it."


class ProcessEndedError(Exception):
    """What happened to a process; never raised, it gives the letters that it names a fingerprint of their own."""


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


def ended_process(letter: Letter) -> bool:
    """Tell whether a process ended while this letter was being handled; others may have been under way with it."""
    return letter.error.startswith(ENDED)


def suspected(before: Letter, now: float) -> Letter:
    """Return what is true of a letter if its process ends in the run that begins now, among others: it may have been another's fault."""
    letter = replace(before)
    letter.first_failed = letter.first_failed or now
    note(letter, _ended(TOGETHER), now)
    return letter


def blamed(before: Letter, *, limits: Limits, now: float) -> Letter:
    """Return what is true of a letter if its process ends in the run that begins now, alone: it counts as a whole round of tries."""
    return counted(before, limits.inline, _ended(ALONE), limits=limits, now=now)


def buried(before: Letter, now: float) -> Letter:
    """Return the dead letter of a message whose process has ended in its last try."""
    letter = replace(before, state=LetterState.DEAD)
    if ended_process(letter):
        note(letter, _ended(EACH_TIME), now)
    return letter


def _ended(text: str) -> Error:
    error = Error(Code.UNKNOWN, text)
    error.__cause__ = ProcessEndedError()
    return error


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
