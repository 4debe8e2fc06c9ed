"""One message in hand, wherever it came from, and how a handler is run for it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from traceback import extract_tb
from types import coroutine
from typing import TYPE_CHECKING, Any, cast

import msgspec

from linkspan import envelope as envelopes
from linkspan.context import Context, Duplicate
from linkspan.envelope import Envelope, claim
from linkspan.errors import Code, Error
from linkspan.path import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from linkspan.context import Home
    from linkspan.handler import Handler
    from linkspan.incoming.lane_reading import Hold
    from linkspan.limits import Limits
    from linkspan.ports import Delivery, Letter, Unit

__all__ = [
    "Binding",
    "Counts",
    "FromStore",
    "Work",
    "context_of",
    "frames",
    "handler_error",
    "letter_work",
    "met_itself",
    "resumed",
    "rolled_back",
    "took_too_long",
    "unreadable",
    "was_cancelled",
]

_log = logging.getLogger("linkspan.consumer")


@dataclass(frozen=True, slots=True)
class Binding:
    """A handler, what it answers and how its messages are handled. `once` is False where the inbox is declined."""

    operation: str
    decode: Callable[..., Any]  # of bytes, content type, and the most bytes where that is not the usual
    handler: Handler
    once: bool
    limits: Limits


@dataclass(slots=True)
class Counts:
    """What happened so far, for logs, the command line and tests."""

    handled: int = 0
    duplicates: int = 0
    retried: int = 0
    parked: int = 0
    dead: int = 0
    skipped: int = 0
    expired: int = 0


class Work(msgspec.Struct, eq=False):
    """One message in hand. `letter` is set when it comes from the store instead of the broker.

    `tries` are those of its inline retries that have failed, `first_failed` is when the first one did (seconds since 1970),
    `told` is set when the breaker has taken note of it, and `in_vain` counts the runs that failed while that was open.
    `hold` is its lane where several instances share the store; with `gap` one before it is missing; `ahead` of letters it runs that
    have waited for it.
    """

    delivery: Delivery
    envelope: Envelope
    key: str
    tries: int = 0
    started: float = 0.0
    running: bool = False
    error: Error | None = None
    letter: Letter | None = None
    done: Callable[[Work], None] | None = None
    first_failed: float = 0.0
    hold: Hold | None = None
    unit: Unit | None = None
    gap: bool = False
    ahead: bool = False
    told: bool = False
    in_vain: int = 0


class FromStore:
    """A letter as a delivery: nothing to settle, the store's transaction does it."""

    __slots__ = ("attempt", "data", "headers", "topic")

    def __init__(self, letter: Letter) -> None:
        self.topic = letter.topic
        self.headers = letter.headers
        self.data = letter.data
        self.attempt = 1

    def ack(self) -> None:
        """Do nothing."""

    def nack(self, delay: float = 0.0) -> None:
        """Do nothing."""

    def beat(self) -> None:
        """Do nothing."""


def context_of(home: Home, work: Work, binding: Binding) -> Context:
    """Return what a handler is given for a message."""
    envelope = work.envelope
    id_, source = envelope.id, envelope.source
    return Context(
        home,
        binding.operation,
        id_,
        id_,
        envelope.correlation or id_,
        envelope.trace,
        source,
        work.started + binding.limits.timeout,
        Path.DURABLE,
        attempt=work.tries + work.in_vain + 1 + (work.letter.attempts if work.letter is not None else 0),
        claim=claim(home.name, source, id_) if binding.once else None,
    )


def handler_error(error: Exception, limits: Limits, fields: Mapping[str, object]) -> Error:
    """Turn what a handler raised into a coded error; a foreign exception's text may hold payload and is not kept."""
    if isinstance(error, Error):
        return error
    _log.warning("A handler raised.", extra={**fields, "error": type(error).__name__, "stack": frames(error)})
    name = type(error).__name__
    if limits.helps(error):
        coded = Error(Code.UNKNOWN, f"The handler raised {name}: see the log of the service.")
    else:
        coded = Error(Code.INTERNAL, f"The handler raised {name}, which no further try can help: see the log of the service.")
    coded.__cause__ = error
    return coded


def took_too_long(limits: Limits) -> Error:
    """Return the error of a handler that was ended."""
    return Error(Code.DEADLINE_EXCEEDED, f"The handler took longer than {limits.timeout:g} s: give it more time.")


def was_cancelled(error: BaseException) -> Error:
    """Return the error of a handler that ended by somebody else's cancellation."""
    return Error(Code.UNKNOWN, f"The handler ended by {type(error).__name__}: something it waited for was cancelled.")


def met_itself(error: BaseException) -> bool:
    """Tell whether a handler met its own repeat inside a task group."""
    return isinstance(error, BaseExceptionGroup) and cast("Any", error).subgroup(Duplicate) is not None


async def rolled_back(ctx: Context) -> Error | None:
    """Undo what a handler did; return why its own failure does not count: what it saw has not come true."""
    tx = ctx.used_tx
    if tx is not None and tx.session is not None:
        try:
            await asyncio.shield(tx.session.rollback())
        except Error as error:
            return error
    return None


def frames(error: BaseException) -> str:
    """Return where an error came from, without its text, which may hold payload."""
    return " < ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(extract_tb(error.__traceback__))
    )


def unreadable(delivery: Delivery, error: Error) -> Work:
    """Name a message whose headers cannot be read by what it holds, so that its redelivery is recognised; it holds no key but its own."""
    digest = blake2b(delivery.headers + b"\n" + delivery.data, digest_size=12).hexdigest()
    work = Work(delivery, Envelope(f"unreadable-{digest}", "", "", f"~{digest}"), f"~{digest}")
    work.error = error
    return work


def letter_work(letter: Letter) -> Work:
    """Take a letter in hand, under its key in the store; where its headers cannot be read, with that error, as when it came."""
    try:
        work = Work(FromStore(letter), envelopes.read(letter.headers, letter.data), letter.key)
    except Error as error:
        work = Work(FromStore(letter), Envelope(letter.id, letter.source, letter.type, letter.key), letter.key, error=error)
    work.letter = letter
    return work


@coroutine
def resumed(run: Any, work: Any, waiting_for: Any) -> Generator[Any, Any, Any]:
    """Drive a handler that has begun, and waits for something, to its end inside the current task.

    `run` is the `run` of the context copy in which it began: no message sees another's context variables.
    """
    while True:
        try:
            value = yield waiting_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - handed on into the handler, as a task would
            step = partial(run, work.throw, error)
        else:
            step = partial(run, work.send, value)
        try:
            waiting_for = step()
        except StopIteration as stop:
            return stop.value
