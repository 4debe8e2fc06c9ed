"""Receive deliveries in a test, and wait for them by count instead of by the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.ports import Delivery

__all__ = ["Collector"]

PATIENCE = 20.0
"""Seconds until a wait gives up; long, because a failing test may take its time, and a slow machine should not fail."""


class Collector:
    """A `receive` function that keeps what it was given, and acknowledges it at once where `ack` is set."""

    def __init__(self, *, ack: bool = False) -> None:
        self.deliveries: list[Delivery] = []
        self.ack = ack
        self._changed = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        """Keep a delivery and wake who waits."""
        self.deliveries.append(delivery)
        if self.ack:
            delivery.ack()
        self._changed.set()

    def shares_with(self, other: Collector) -> None:
        """Wake waiters of one when the other receives."""
        other._changed = self._changed

    @property
    def data(self) -> list[bytes]:
        """Payloads in order of arrival."""
        return [delivery.data for delivery in self.deliveries]

    async def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something holds; checked after each delivery."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not happen within {PATIENCE:g} s; received so far: {self.data[-20:]}") from None

    async def count(self, number: int) -> list[Delivery]:
        """Wait for a number of deliveries in all, and return them."""
        await self.until(lambda: len(self.deliveries) >= number, f"{number} deliveries")
        return self.deliveries

    async def all_of(self, wanted: set[bytes]) -> None:
        """Wait until each of these payloads has arrived at least once."""
        await self.until(lambda: wanted <= set(self.data), f"all of {len(wanted)} payloads")

    def first_seen(self) -> list[bytes]:
        """Return payloads in the order of their first arrival."""
        return list(dict.fromkeys(self.data))
