"""What a group has in hand of one partition, and how far it may tell the brokers that it has come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.ports import Delivery

__all__ = ["NOWHERE", "Intake", "Lane"]

NOWHERE = -1
"""No offset."""


class Intake:
    """One bound on what is in hand, and where it goes: a lane's own, or one for all partitions of a member."""

    __slots__ = ("backlog", "deliver", "in_hand", "prefetch", "taking")

    def __init__(self, deliver: Callable[[Delivery], None], prefetch: int) -> None:
        self.deliver = deliver
        self.prefetch = prefetch
        self.in_hand = 0
        self.taking = True
        self.backlog: deque[tuple[Lane, Any]] = deque()
        """Messages that came beyond the bound, each with its lane: they are handed over as room is made."""


class Lane:
    """One partition from its assignment to its loss. Deliveries that outlive it are harmless: `open` is False.

    Written on the event loop; the thread reads `floor` and `blocked`, keeps `committed`, and sets `open` to False.
    """

    __slots__ = ("_order", "_settled", "blocked", "committed", "floor", "in_hand", "intake", "open", "partition")

    def __init__(self, partition: int, intake: Intake) -> None:
        self.partition = partition
        self.intake = intake
        self.open = True
        self.blocked = False
        """No more of it should be fetched at present."""
        self.in_hand = 0
        self.floor = NOWHERE
        """The offset behind the contiguous settled prefix: what a commit says."""
        self.committed = NOWHERE
        self._order: deque[int] = deque()
        self._settled: set[int] = set()

    @property
    def ahead(self) -> int:
        """Return how many were taken since the oldest that is not settled."""
        return len(self._order)

    def take(self, offset: int) -> None:
        """Note a message that is handed over for the first time; offsets grow, but need not be without holes."""
        self._order.append(offset)
        self.in_hand += 1

    def settle(self, offset: int) -> None:
        """Note that a message is done with, and move the floor over all that are so without a gap."""
        self.in_hand -= 1
        order, settled = self._order, self._settled
        if order and order[0] == offset:
            order.popleft()
            while order and order[0] in settled:
                offset = order.popleft()
                settled.discard(offset)
            self.floor = offset + 1
        else:
            settled.add(offset)
