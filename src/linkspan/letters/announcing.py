"""Announcing: a service that says `letter_events=True` publishes what becomes of its letters, in the transaction that makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan import letter_events as events
from linkspan.context import derived_id
from linkspan.envelope import MAX_KEY, read
from linkspan.errors import Error
from linkspan.outgoing.sender import Origin, Sender
from linkspan.ports import LetterState
from linkspan.trace import child_of

if TYPE_CHECKING:
    from linkspan.letters.redrive import Redrive
    from linkspan.outgoing.outbox import Relay
    from linkspan.ports import Letter, Runtime, Unit

__all__ = ["Announcer"]


class Announcer:
    """Publishes the letter events of one service."""

    def __init__(self, name: str, runtime: Runtime, relay: Relay) -> None:
        self._name = name
        self._ids = runtime.ids
        self._relay = relay
        self._sender = Sender(name, runtime)

    def held(self, unit: Unit, letter: Letter, before: Letter | None) -> None:
        """Say that a letter is parked for the first time, or dead."""
        if letter.state is LetterState.DEAD:
            self._add(unit, letter, events.MessageDead, redrives=letter.redrives, **_failure(letter))
        elif letter.state is LetterState.PARKED and (before is None or not before.attempts):
            self._add(unit, letter, events.MessageParked, **_failure(letter))

    def recovered(self, unit: Unit, letter: Letter) -> None:
        """Say that a message that had failed has its effect; one that only waited behind another is none."""
        if letter.attempts:
            self._add(unit, letter, events.MessageRecovered, attempts=letter.attempts, redrives=letter.redrives)

    def stopped(self, unit: Unit, redrive: Redrive, reason: str) -> None:
        """Say that a redrive stopped by itself."""
        event = events.RedriveStopped(key=self._name, service=self._name, redrive=redrive.id, group=redrive.fingerprint, reason=reason)
        origin = Origin(derived_id(redrive.id, "stopped", 1), child_of("", self._ids))
        unit.messages.append(self._sender.event(origin, event))

    def committed(self, unit: Unit) -> None:
        """Hand the events of a committed unit to the relay."""
        if unit.messages:
            self._relay.take(unit.messages)

    def _add(self, unit: Unit, letter: Letter, cls: Any, **fields: Any) -> None:
        if letter.type.startswith(f"{events.contract.package}."):  # an alert that fails must not raise another
            return
        topic = letter.topic.partition(":")[2]
        event = cls(
            key=f"{letter.topic}:{letter.key}"[:MAX_KEY],
            service=self._name,
            topic=topic,
            message_key=letter.key,
            message_id=letter.id,
            message_source=letter.source,
            message_type=letter.type,
            **fields,
        )
        unit.messages.append(self._sender.event(self._origin(letter, cls.__name__), event))

    def _origin(self, letter: Letter, name: str) -> Origin:
        """Name an event after what it tells of, so that a repeat of it is the same message."""
        try:
            envelope = read(letter.headers, letter.data)
            trace, correlation = envelope.trace, envelope.correlation or envelope.id
        except Error:
            trace, correlation = "", letter.id
        id_ = derived_id(f"{letter.source}\n{letter.id}", f"{self._name} {letter.topic} {name} {letter.attempts}", letter.redrives)
        return Origin(id_, child_of(trace, self._ids), correlation, letter.id)


def _failure(letter: Letter) -> dict[str, Any]:
    return {"code": letter.code, "error": letter.error, "group": letter.fingerprint, "attempts": letter.attempts}
