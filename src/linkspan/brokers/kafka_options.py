"""What is given to librdkafka: our settings, which a promise rests on, and the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KafkaOptions"]

PUBLISH_TIMEOUT = 15.0
"""Seconds until a publish that was not confirmed fails with UNAVAILABLE; a failover takes less, a broker's session being 9 seconds."""
MAX_MESSAGE = 1_048_576
"""Bytes of the largest request to a partition; the server's default is 12 more."""
BATCH_BYTES = 262_144
"""Bytes of the largest batch that librdkafka makes of small messages: no topic may accept less."""
SESSION = 6_000
"""Milliseconds after which a member that died without a word has lost its lanes; the server's least."""
LANE_FETCH = 65_536
"""Bytes that are fetched of a lane at a time; a larger message comes alone."""

_OURS = {"replicas", "retention", "publish_timeout", "confluent"}
_FIXED = {
    "acks": "all",
    "enable.idempotence": "true",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "check.crcs": "true",
    "auto.offset.reset": "earliest",
}
"""Settings on which what we promise rests: another value is refused."""
_SENDER: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 0,
    "message.max.bytes": MAX_MESSAGE,
    "batch.size": BATCH_BYTES,
    "message.timeout.ms": 0,  # our own clock ends what waits, all at once: librdkafka's would let a later message pass one that it gave up
}
_READER: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "check.crcs": True,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": SESSION,
    "heartbeat.interval.ms": SESSION // 4,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 5,
}
_BOTH: dict[str, Any] = {
    "client.id": "linkspan",
    "log_level": 0,  # what matters comes by the error callback, and is logged in our words
    "reconnect.backoff.max.ms": 1000,
    "socket.keepalive.enable": True,
}
_SENDER_ONLY = frozenset({*_SENDER, "compression.type", "queue.buffering.max.kbytes", "queue.buffering.max.messages"})
_READER_ONLY = frozenset({*_READER, "fetch.wait.max.ms", "fetch.min.bytes", "group.instance.id"})


class KafkaOptions:
    """Reads `kafka://user:password@host:port,host:port?name=value`; `kafkas://` is the same over TLS.

    Options are librdkafka's own (`sasl.mechanism`, `ssl.ca.location`, ...), in the URL or given, except for ours: `replicas` of new
    topics (default: 3, or as many as there are brokers), `retention` of new topics in seconds (default: for ever),
    `publish_timeout` in seconds.
    """

    def __init__(self, url: str, user: str = "", password: str = "", options: Mapping[str, Any] | None = None) -> None:
        parts = urlsplit(url)
        address, _, hosts = parts.netloc.rpartition("@")
        given: dict[str, Any] = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **(options or {})}
        if not hosts:
            raise SetupError("The Kafka address has no host: write kafka://host:port, or several with commas.")
        name, _, secret = address.partition(":")
        user, password = user or unquote(name), password or unquote(secret)
        for setting, value in _FIXED.items():
            if setting in given and str(given[setting]).lower() != value:
                raise SetupError(
                    f"The Kafka option '{setting}' cannot be '{given[setting]}': what is promised rests on '{value}', leave it out."
                )
        self._ours = {name: given.pop(name) for name in _OURS if name in given}
        self._given = _security(tls=parts.scheme == "kafkas", user=user, password=password) | given
        self._servers = hosts
        self.publish_timeout = _seconds("publish_timeout", self._ours.get("publish_timeout", PUBLISH_TIMEOUT))
        self.replicas = _count("replicas", self._ours.get("replicas", 0))
        self.retention = _seconds("retention", self._ours.get("retention", 0))
        self.max_message = _count("message.max.bytes", given.get("message.max.bytes", MAX_MESSAGE))
        self.batch_bytes = _count("batch.size", given.get("batch.size", BATCH_BYTES))
        self.confluent = self._ours.get("confluent")

    def sender(self) -> dict[str, Any]:
        """Return a producer's settings."""
        return self._for(_SENDER, _READER_ONLY)

    def reader(self, group: str) -> dict[str, Any]:
        """Return the settings of a group's consumer."""
        return self._for(_READER, _SENDER_ONLY) | {"group.id": group}

    def lane_reader(self, group: str) -> dict[str, Any]:
        """Return the settings of a consumer that reads lane by lane: partitions are paused often, which throws away what was fetched."""
        return {"fetch.message.max.bytes": LANE_FETCH} | self.reader(group)

    def admin(self) -> dict[str, Any]:
        """Return the settings of a connection that asks and declares."""
        return self._for({}, _SENDER_ONLY | _READER_ONLY)

    def tls(self) -> dict[str, str] | None:
        """Return the `ssl.*` options where the connection uses TLS."""
        if "ssl" not in str(self._given.get("security.protocol", "")).lower():
            return None
        return {name: str(value) for name, value in self._given.items() if name.startswith("ssl.")}

    def _for(self, fixed: dict[str, Any], others: frozenset[str]) -> dict[str, Any]:
        chosen = {name: value for name, value in self._given.items() if name not in others}
        return _BOTH | fixed | chosen | {"bootstrap.servers": self._servers}


def _security(*, tls: bool, user: str, password: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if user:
        found = {"sasl.username": user, "sasl.password": password, "sasl.mechanism": "SCRAM-SHA-512"}
    if user or tls:
        found["security.protocol"] = f"{'sasl_' if user else ''}{'ssl' if tls else 'plaintext'}"
    return found


def _seconds(name: str, value: object) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise SetupError(f"The Kafka option '{name}' is '{value}': give seconds as a number.") from error


def _count(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise SetupError(f"The Kafka option '{name}' is '{value}': give a whole number.") from error
