"""Events about held messages, for those who alert: published by services that say so, `Service(..., letter_events=True)`.

They leave through the service's outbox in the transaction that stores the letter, and hold nothing of the message's content.

    @alerts.on(MessageDead)
    async def page(ctx: Context, event: MessageDead) -> None: ...
"""

from __future__ import annotations

from linkspan.contract import Contract
from linkspan.message import Event, field

__all__ = ["MessageDead", "MessageParked", "MessageRecovered", "RedriveStopped", "contract"]

contract = Contract("linkspan.deadletter.v1", owner="linkspan")


class MessageParked(Event):
    """A message failed again and again, and waits to be tried later; its key waits with it. Said once, when it is parked first."""

    key: str = field(1, key=True)
    """`service:topic:order key`: events about one key stand in order."""
    service: str = field(2)
    topic: str = field(3)
    message_key: str = field(4)
    message_id: str = field(5)
    message_source: str = field(6)
    message_type: str = field(7)
    code: str = field(8)
    error: str = field(9)
    group: str = field(10)
    attempts: int = field(11)


class MessageDead(Event):
    """A message waits for a person, and its key waits with it. Said again when a redrive failed."""

    key: str = field(1, key=True)
    """`service:topic:order key`: events about one key stand in order."""
    service: str = field(2)
    topic: str = field(3)
    message_key: str = field(4)
    message_id: str = field(5)
    message_source: str = field(6)
    message_type: str = field(7)
    code: str = field(8)
    error: str = field(9)
    group: str = field(10)
    attempts: int = field(11)
    redrives: int = field(12)


class MessageRecovered(Event):
    """A message that had been parked or dead had its effect. It goes with the effect's own transaction."""

    key: str = field(1, key=True)
    """`service:topic:order key`: events about one key stand in order."""
    service: str = field(2)
    topic: str = field(3)
    message_key: str = field(4)
    message_id: str = field(5)
    message_source: str = field(6)
    message_type: str = field(7)
    attempts: int = field(8)
    redrives: int = field(9)


class RedriveStopped(Event):
    """A redrive of many stopped by itself: too many letters failed again."""

    key: str = field(1, key=True)
    """The service's name."""
    service: str = field(2)
    redrive: str = field(3)
    group: str = field(4)
    reason: str = field(5)
