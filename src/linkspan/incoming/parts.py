"""Batches on the consumer's side: one broker delivery becomes many, which settle it together.

Each is a message like any other: inbox, order per key, retries, dead letters. The broker is told when all have their end; what a crash
leaves comes again as the same batch, and the inbox knows what was done. A batch that cannot be read is held as a whole.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from linkspan import envelope as envelopes
from linkspan.batch import dictionaries_of, is_batch, singles
from linkspan.envelope import PROTOBUF
from linkspan.errors import Code, Error
from linkspan.incoming.work import Work, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.envelope import Envelope
    from linkspan.ports import Clock, Delivery

__all__ = ["Part", "Parts", "Share", "holds_many", "work_of"]

ROOM = 1024
"""Messages in hand above which further batches wait, packed; with those of one batch more it stays under what a consumer takes."""

TOGETHER = 1.0
"""Seconds within which the signs of life of a batch's messages are one."""


class Share:
    """What the parts of a delivery have in common: the delivery, and how many of them have no end yet."""

    __slots__ = ("_clock", "_left", "_said", "_wanted", "delivery")

    def __init__(self, delivery: Delivery, count: int, clock: Clock) -> None:
        self.delivery = delivery
        self._left = count
        self._clock = clock
        self._said = float("-inf")
        self._wanted: float | None = None

    @property
    def attempt(self) -> int:
        """Return what the broker counted."""
        return self.delivery.attempt

    def settle(self, again: float | None = None) -> None:
        """Take a part's end; the last one settles the delivery, `again` after that many seconds where a part wanted it."""
        self._left -= 1
        if again is not None:
            self._wanted = max(again, self._wanted or 0.0)
        if self._left:
            return
        if self._wanted is None:
            self.delivery.ack()
        else:
            self.delivery.nack(self._wanted)

    def beat(self) -> None:
        """Say that the work goes on, once for all parts that say so together."""
        now = self._clock.monotonic()
        if now >= self._said + TOGETHER:
            self._said = now
            self.delivery.beat()


class Part(msgspec.Struct, eq=False, gc=False):
    """One message of a batch, as a delivery."""

    topic: str
    headers: bytes
    data: bytes
    share: Share
    unsettled: bool = True

    @property
    def attempt(self) -> int:
        """Return what the broker counted for the batch."""
        return self.share.attempt

    def ack(self) -> None:
        """Settle it."""
        if self.unsettled:
            self.unsettled = False
            self.share.settle()

    def nack(self, delay: float = 0.0) -> None:
        """Give it back, with the whole batch."""
        if self.unsettled:
            self.unsettled = False
            self.share.settle(delay)

    def beat(self) -> None:
        """Say that the work goes on."""
        if self.unsettled:
            self.share.beat()


class Parts:
    """Unpacks what a consumer receives; batches stay packed while it has enough in hand, and so does what came after them."""

    def __init__(self, topic: str, in_hand: set[Work], take: Callable[[Work], None], clock: Clock) -> None:
        self.packed: deque[Delivery] = deque()
        self._topic = topic
        self._in_hand = in_hand
        self._take = take
        self._clock = clock

    def receive(self, batch: Work) -> None:
        """Take a batch; nothing is `packed` yet."""
        if len(self._in_hand) > ROOM:
            self.packed.append(batch.delivery)
        else:
            self._unpack(batch)

    def more(self) -> None:
        """Go on with what is packed, where there is room again."""
        while self.packed and len(self._in_hand) <= ROOM:
            work = work_of(self.packed.popleft())
            if holds_many(work):
                self._unpack(work)
            else:
                self._take(work)

    def beat(self) -> None:
        """Keep what is packed ours."""
        for delivery in self.packed:
            delivery.beat()

    def unpack_letter(self, batch: Work, end: Callable[[], None]) -> bool:
        """Take the messages of a held batch, `end` follows when all have theirs; False where it still cannot be read: its error is set."""
        works = self._works(batch, _Held(end))
        for work in works:
            self._take(work)
        return bool(works)

    def _unpack(self, batch: Work) -> None:
        for work in self._works(batch, batch.delivery) or (batch,):
            self._take(work)

    def _works(self, batch: Work, delivery: Delivery) -> list[Work]:
        data = batch.delivery.data
        try:
            found = singles(data, dictionaries_of(self._topic))
        except Error as error:
            batch.error = error
            return []
        share = Share(delivery, len(found), self._clock)
        return [_part(Part(self._topic, single.headers, single.data, share), single.envelope) for single in found]


class _Held:
    """A held batch as a delivery: its end removes the letter."""

    __slots__ = ("_end",)

    topic, headers, data, attempt = "", b"", b"", 1

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def ack(self) -> None:
        """Let it go."""
        self._end()

    def nack(self, delay: float = 0.0) -> None:
        """Let it go: what was given back is held by itself."""
        del delay
        self._end()

    def beat(self) -> None:
        """Do nothing."""


def work_of(delivery: Delivery) -> Work:
    """Take a delivery in hand; one whose headers cannot be read has that error."""
    try:
        envelope = envelopes.read(delivery.headers, delivery.data)
    except Error as error:
        return unreadable(delivery, error)
    return Work(delivery, envelope, envelope.key or f"~{envelope.id}")


def _part(part: Part, envelope: Envelope | None) -> Work:
    """Take one message of a batch in hand."""
    work = work_of(part) if envelope is None else Work(part, envelope, envelope.key or f"~{envelope.id}")
    if work.envelope.content_type != PROTOBUF and holds_many(work):
        work.error = Error(Code.INVALID_ARGUMENT, "A batch holds another batch: send its messages singly.")
    return work


def holds_many(work: Work) -> bool:
    """Tell whether a message is a batch."""
    content_type = work.envelope.content_type
    return content_type != PROTOBUF and is_batch(content_type)
