"""The settings of NATS that make an acknowledgement worth less, as tables: of a server, a stream, a consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.ports import Unsafe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Test = Callable[[Mapping[str, Any]], bool]

__all__ = ["CONSUMER", "SERVER", "STREAM", "TABLES"]

MIN_SERVER = (2, 15)
"""Older servers had holes in `sync_interval: always` (nats-server PR 8475)."""
REMEMBERED = 30 * 86_400 * 1_000_000_000
"""Nanoseconds that inboxes remember: a message that is kept for less may be gone before its group is back."""
DUPLICATE_WINDOW = 120 * 1_000_000_000
SHORT_ACK_WAIT = 5 * 1_000_000_000
_LIMITS = ("max_msgs", "max_bytes", "max_msgs_per_subject")


def _is(setting: str, *values: Any) -> Test:
    return lambda facts: facts.get(setting) in values


def _between(setting: str, low: int, high: int) -> Test:
    return lambda facts: low < int(facts.get(setting) or 0) < high


def _drops_oldest(facts: Mapping[str, Any]) -> bool:
    return facts.get("discard", "old") == "old" and any(int(facts.get(limit, -1)) > 0 for limit in _LIMITS)


SERVER = (
    Unsafe(
        "nats.old_server",
        "process",
        "version",
        "before 2.15 `sync_interval: always` had holes through which acknowledged messages were lost",
        "run nats-server 2.15 or newer",
        lambda facts: tuple(facts.get("version_numbers", MIN_SERVER)) < MIN_SERVER,
    ),
    Unsafe(
        "nats.sync_interval",
        "process",
        "sync",
        "an acknowledged message survives a killed server, not a power cut",
        "set `sync_interval: always` in the server's jetstream block",
        lambda facts: facts.get("sync_always") is False,
    ),
    Unsafe(
        "nats.sync_unknown",
        "process",
        "sync",
        "nobody proves that it syncs before it acknowledges, so a power cut may lose what was acknowledged",
        "give `monitoring` (the HTTP address of each server), or let this login ask `$SYS.REQ.SERVER.PING.VARZ`",
        lambda facts: "sync_always" in facts and facts["sync_always"] is None,
    ),
)

STREAM = (
    Unsafe(
        "nats.memory_storage",
        "none",
        "storage",
        "its messages are gone when the server restarts",
        "make a stream with `storage: file`",
        _is("storage", "memory"),
    ),
    Unsafe(
        "nats.async_persist",
        "none",
        "persist_mode",
        "it acknowledges before anything is written",
        "make a stream without `persist_mode: async`",
        _is("persist_mode", "async"),
    ),
    Unsafe(
        "nats.no_ack",
        "none",
        "no_ack",
        "it confirms no message, so nobody knows what was stored",
        "set `no_ack: false`",
        _is("no_ack", True),
    ),
    Unsafe(
        "nats.drops_oldest",
        "none",
        "discard",
        "at its limit it may lose the oldest messages, read or not",
        "set `discard: new`, or no limit of messages or bytes",
        _drops_oldest,
    ),
    Unsafe(
        "nats.interest_retention",
        "none",
        "retention",
        "what is published while no group is declared is dropped, though acknowledged",
        "make a stream with `retention: limits`",
        _is("retention", "interest"),
    ),
    Unsafe(
        "nats.workqueue_retention",
        "process",
        "retention",
        "a handled message and its id leave, so that a later copy is stored again and a new group gets no history",
        "make a stream with `retention: limits`",
        _is("retention", "workqueue"),
    ),
    Unsafe(
        "nats.max_age",
        "process",
        "max_age",
        "messages leave unread when a group is away for longer (nanoseconds)",
        "set `max_age` to 0, or to 30 days and more",
        _between("max_age", 0, REMEMBERED),
    ),
    Unsafe(
        "nats.one_replica",
        "power",
        "num_replicas",
        "in a cluster its messages are on one server only, and away while that is",
        "set three replicas: `nats stream edit --replicas 3`",
        lambda facts: facts.get("clustered") is True and int(facts.get("num_replicas", 1)) == 1,
    ),
    Unsafe(
        "nats.two_replicas",
        "power",
        "num_replicas",
        "two replicas stop when either server does: no more than one would, at twice the cost",
        "set three replicas: `nats stream edit --replicas 3`",
        _is("num_replicas", 2),
    ),
    Unsafe(
        "nats.duplicate_window",
        "power",
        "duplicate_window",
        "copies that a relay sends after an outage are stored again; inboxes end them (nanoseconds)",
        "set `duplicate_window` to two minutes",
        _between("duplicate_window", 0, DUPLICATE_WINDOW),
    ),
    Unsafe(
        "nats.rollup",
        "process",
        "allow_rollup_hdrs",
        "any publisher may remove all earlier messages of a subject by a header",
        "set `allow_rollup_hdrs: false`",
        _is("allow_rollup_hdrs", True),
    ),
    Unsafe(
        "nats.message_ttl",
        "process",
        "allow_msg_ttl",
        "publishers may let messages leave unread",
        "make a stream without `allow_msg_ttl`",
        _is("allow_msg_ttl", True),
    ),
)

CONSUMER = (
    Unsafe(
        "nats.ack_policy",
        "none",
        "ack_policy",
        "messages count as handled before they are",
        "make a consumer with `ack_policy: explicit`",
        _is("ack_policy", "none", "all"),
    ),
    Unsafe(
        "nats.max_deliver",
        "none",
        "max_deliver",
        "after so many deliveries a message is passed over in silence",
        "set `max_deliver: -1`; dead letters are the service's",
        lambda facts: int(facts.get("max_deliver", -1)) > 0,
    ),
    Unsafe(
        "nats.deliver_policy",
        "none",
        "deliver_policy",
        "what was stored before the group was declared is passed over",
        "make a consumer with `deliver_policy: all`",
        _is("deliver_policy", "new", "last", "last_per_subject", "by_start_time"),
    ),
    Unsafe(
        "nats.headers_only",
        "none",
        "headers_only",
        "messages come without what they say",
        "set `headers_only: false`",
        _is("headers_only", True),
    ),
    Unsafe(
        "nats.memory_consumer",
        "power",
        "mem_storage",
        "the group's place is forgotten with the server; everything comes again, and inboxes end it",
        "make a consumer without `mem_storage`",
        _is("mem_storage", True),
    ),
    Unsafe(
        "nats.inactive_threshold",
        "process",
        "inactive_threshold",
        "a group that is away for so long is removed, with its place (nanoseconds)",
        "make a consumer without `inactive_threshold`",
        lambda facts: int(facts.get("inactive_threshold") or 0) > 0,
    ),
    Unsafe(
        "nats.ack_wait",
        "power",
        "ack_wait",
        "messages that are still being handled are handed to somebody else as well (nanoseconds)",
        "set `ack_wait` to 30 seconds",
        _between("ack_wait", 0, SHORT_ACK_WAIT),
    ),
    Unsafe(
        "nats.consumer_replicas",
        "power",
        "num_replicas",
        "the group's place is on fewer servers than its messages",
        "set the consumer's `num_replicas` to 0: those of its stream",
        lambda facts: 0 < int(facts.get("num_replicas") or 0) < int(facts.get("stream_replicas", 1)),
    ),
)

TABLES = {"server": SERVER, "stream": STREAM, "consumer": CONSUMER}
