"""Messages from transactions that are not ours: handed over in a table of the user's database, moved into the outbox after commit.

The table is the user's half of the outbox. Its rows become true with the user's commit; the mover takes them, in the order in which
they were committed, into the service's own outbox, and removes them there. A crash in between moves them again: the inbox claim of each
id lets them in once (ADR 14).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from linkspan.envelope import claim
from linkspan.errors import Error
from linkspan.ports import Unit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from linkspan.outgoing.outbox import Relay
    from linkspan.owner import Owned
    from linkspan.ports import Outgoing, Runtime, Timer

__all__ = ["HandOver", "Mover"]

_log = logging.getLogger("linkspan.outbox")

PAGE: Final = 500
"""Rows moved at a time, in one commit."""
SWEEP: Final = 5.0
"""Seconds between two looks for rows of which nobody told, such as those of another process or from before a crash."""


class HandOver(Protocol):
    """A table in a database of the user's. One writer at a time makes its positions grow in the order of commits."""

    def bind(self, name: str, owns: Owned) -> None:
        """Take the service's name and what it may publish. Raises `SetupError` for a second service."""
        ...

    async def open(self, wake: Callable[[], None]) -> None:
        """Make the table where it is missing; call `wake`, from any thread, after each commit that wrote to it. Raises `SetupError`."""
        ...

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows by position."""
        ...

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        ...

    async def aclose(self) -> None:
        """Wake nobody any more. Idempotent."""
        ...


class Mover:
    """Moves one service's handed-over rows into its outbox. `commit` commits a unit and gives its messages to the relay."""

    def __init__(self, table: HandOver, name: str, relay: Relay, runtime: Runtime, commit: Callable[[Unit], Awaitable[None]]) -> None:
        self._table = table
        self._name = name
        self._relay = relay
        self._runtime = runtime
        self._commit = commit
        self._woken = asyncio.Event()
        self._timer: Timer | None = None
        self._moving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the table and begin with what is there."""
        await self._table.open(self._woken.set)
        self._woken.set()
        self._moving = asyncio.get_running_loop().create_task(self._run())

    async def drain(self) -> None:
        """Move what is committed by now, and stop."""
        if self._moving is not None:
            await self._stop()
            await self._move_all()

    async def aclose(self) -> None:
        """Stop; what is not moved stays for the next start. Idempotent."""
        await self._stop()
        await self._table.aclose()

    async def _stop(self) -> None:
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.cancel()
            with suppress(asyncio.CancelledError):
                await moving
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        while True:
            self._timer = self._runtime.clock.call_later(SWEEP, self._woken.set)
            await self._woken.wait()
            self._woken.clear()
            self._timer.cancel()
            await self._move_all()

    async def _move_all(self) -> None:
        try:
            while await self._move():
                pass
        except Exception as error:  # noqa: BLE001 - whatever the user's database raises, the rows are there and the next sweep takes them
            code = error.code.value if isinstance(error, Error) else type(error).__name__
            _log.warning("Moving handed-over messages failed; will try again.", extra={"service": self._name, "code": code})

    async def _move(self) -> bool:
        """Move a page; tell whether there may be more."""
        await self._relay.room()
        rows = await self._table.committed(PAGE)
        if not rows:
            return False
        self._runtime.reached("handover.move.before")
        units = [Unit(_unsettled, claim(self._name, "handover", message.id), messages=[message]) for _, message in rows]
        await asyncio.gather(*(self._commit(unit) for unit in units))
        self._runtime.reached("handover.move.after")
        await self._table.remove([position for position, _ in rows])
        return len(rows) == PAGE


def _unsettled(_unit: Unit) -> None:
    """Stand in until the unit is committed."""
