"""A bad network: publishes whose answer is lost, some of them with the message."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING

from linkspan import Code, Error
from linkspan.brokers import nats
from linkspan.outgoing import outbox

if TYPE_CHECKING:
    from linkspan.ports import Outgoing

__all__ = ["make_lossy"]


def make_lossy(share: float) -> None:
    """Fail a share of the publishes, half of them after they were stored: what a bad network does."""
    right, turns = nats.NatsBroker.publish, count()
    every = round(1 / share)

    def publish(self: nats.NatsBroker, message: Outgoing) -> asyncio.Future[None]:
        turn = next(turns)
        if turn % every:
            return right(self, message)
        if turn % (2 * every):
            right(self, message).add_done_callback(lambda future: future.exception())
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(Error(Code.UNAVAILABLE, "Not known whether it was stored."))
        return failed

    nats.NatsBroker.publish = publish  # for this process
    outbox.PAUSES = (0.01,)
