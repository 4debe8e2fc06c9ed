"""One commit for interactive transactions that follow each other without a pause (ADR 7). Runs in the writer's thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_writer import fail, finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Outgoing, Unit
    from linkspan.stores.sqlite_writer import Writer

__all__ = ["Ending", "SharedCommit"]

CAUTION = 5.0
"""Seconds in which each transaction commits alone after a shared commit has failed, so that the one to blame fails alone."""


@dataclass(slots=True, eq=False)
class Ending:
    """How a session ended: what to tell its caller once all that it saw is on disk. With a `unit`, its work is part of the commit."""

    future: asyncio.Future[Any]
    unit: Unit | None = None
    error: Error | None = None

    def tell(self, failure: Error | None) -> None:
        """Answer on the loop."""
        error = failure or self.error
        try:
            if self.unit is not None and error is None:
                self.unit.outcome = Outcome.COMMITTED
                self.unit.settled(self.unit)
        finally:
            if error is None:
                finish(self.future, None)
            else:
                fail(self.future, error)


class SharedCommit:
    """An open transaction that one session after another writes into, each behind a savepoint but the first.

    A session that fails is undone alone. A commit that fails undoes all; whoever ended before it is told so, whatever its end.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._endings: list[Ending] = []
        self._messages: list[Outgoing] = []
        self._numbers: list[int] = []
        self._units = 0
        self._since = 0.0

    # --- one session after another

    def open(self) -> None:
        """Begin the next session's part."""
        if self._units:
            self._writer.begin_inner()
        else:
            self._writer.begin()

    def keep(self, unit: Unit, messages: Sequence[Outgoing], future: asyncio.Future[Any]) -> None:
        """End the session's part: its messages are written and its work stays."""
        writer = self._writer
        numbers = writer.write_messages(messages, len(self._messages))
        if self._units:
            writer.end_inner()
        else:
            self._since = writer.runtime.clock.monotonic()
        self._units += 1
        self._messages += messages
        self._numbers += numbers
        self._endings.append(Ending(future, unit))

    def undo(self) -> None:
        """Undo the session's part; when SQLite has undone everything, say so to those before."""
        writer = self._writer
        if not self._units:
            writer.undo()
            return
        try:
            writer.undo_inner()
        except Exception as error:  # noqa: BLE001 - those before are told
            self._lose(error)
        self.check()

    def check(self) -> None:
        """Look whether a failed or interrupted statement took the whole transaction with it."""
        if self._units and not self._writer.connection.in_transaction:
            self._lose(Error(Code.UNAVAILABLE, f"A transaction of store '{self._writer.name}' was undone with a later one: try again."))

    def answer(self, future: asyncio.Future[Any], error: Error | None = None) -> None:
        """Tell a session that left nothing: now, or with those whose work it may have seen."""
        ending = Ending(future, None, error)
        if self._units:
            self._endings.append(ending)
        else:
            self._writer.post(_tell, [ending], None)

    # --- the commit

    @property
    def patience(self) -> float | None:
        """Return the seconds that those before can still wait, None when there are none."""
        if not self._units:
            return None
        delay, now = self._writer.limits.shared_delay, self._writer.runtime.clock.monotonic()
        return min(max(self._since + delay - now, 0.0), delay)

    @property
    def may_grow(self) -> bool:
        """Tell whether another session may join."""
        writer = self._writer
        return 0 < self._units < writer.limits.shared and bool(self.patience) and writer.runtime.clock.monotonic() >= writer.careful_until

    def commit(self) -> bool:
        """Commit and tell everybody; False when it failed."""
        if not self._units:
            return True
        try:
            self._writer.commit(self._messages, self._numbers)
        except Exception as error:  # noqa: BLE001 - all are told
            self._lose(error)
            return False
        self._tell(None)
        return True

    def _lose(self, error: Exception) -> None:
        """Undo everything and tell everybody; who was alone gets the error itself."""
        writer = self._writer
        writer.undo()
        found = coded(writer.name, error)
        if len(self._endings) > 1:
            writer.careful_until = writer.runtime.clock.monotonic() + CAUTION
            if not found.transient:
                found = Error(Code.UNAVAILABLE, f"A commit of store '{writer.name}' failed for another's fault: try again.")
        self._tell(found)

    def _tell(self, failure: Error | None) -> None:
        endings, self._endings, self._messages, self._numbers, self._units = self._endings, [], [], [], 0
        self._writer.post(_tell, endings, failure)


def _tell(endings: Sequence[Ending], failure: Error | None) -> None:
    """Answer on the loop, in order of commit."""
    for ending in endings:
        try:
            ending.tell(failure)
        except Exception as error:  # noqa: BLE001 - one caller must not lose the others their answers
            asyncio.get_running_loop().call_exception_handler({"message": "A unit's settled callback failed.", "exception": error})
