"""The settings of Kafka that make an acknowledgement worth less, as tables: of a topic, and of the cluster.

An acknowledged message is on the machines of all replicas in sync, in memory: a power cut of all of them loses it unless each message
is synced or the replicas stand apart. So whoever has neither is told of `kafka.not_synced`, and of what would mend it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.ports import Unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLUSTER", "ELR", "TABLES", "TOPIC"]

COPIES, IN_SYNC, RACKS = 3, 2, 2
REMEMBERED = 30 * 24 * 3600
"""Seconds that inboxes remember: a message that is kept for less may be gone before its group is back."""
ELR = "eligible.leader.replicas.version"
"""The feature that keeps a replica which was last in sync from leading before it has what it acknowledged."""


def _number(facts: Mapping[str, Any], setting: str, default: int) -> int:
    return int(facts.get(setting, default))


def _apart(facts: Mapping[str, Any]) -> bool:
    """Tell whether acknowledged messages are on machines that no one power cut ends."""
    copies, racks = int(facts["replicas"]) >= COPIES, int(facts["racks"]) >= RACKS
    return copies and racks and _number(facts, "min.insync.replicas", 1) >= IN_SYNC and facts[ELR] == "on"


TOPIC = (
    Unsafe(
        "kafka.unclean_election",
        "none",
        "unclean.leader.election.enable",
        "a replica that lacks acknowledged messages may become the leader, and they are gone",
        "set `unclean.leader.election.enable=false`",
        lambda facts: facts.get("unclean.leader.election.enable") == "true",
    ),
    Unsafe(
        "kafka.compacted",
        "none",
        "cleanup.policy",
        "it loses all but the last message of a key",
        "set `cleanup.policy=delete`",
        lambda facts: "compact" in str(facts.get("cleanup.policy", "")),
    ),
    Unsafe(
        "kafka.retention_bytes",
        "none",
        "retention.bytes",
        "at its limit it loses the oldest messages, read or not",
        "set `retention.bytes=-1`",
        lambda facts: _number(facts, "retention.bytes", -1) > 0,
    ),
    Unsafe(
        "kafka.retention",
        "process",
        "retention.ms",
        "messages leave unread when a group is away for longer (milliseconds)",
        "set `retention.ms=-1`, or 30 days and more",
        lambda facts: 0 <= _number(facts, "retention.ms", -1) < REMEMBERED * 1000,
    ),
    Unsafe(
        "kafka.not_synced",
        "process",
        "flush.messages",
        "an acknowledged message survives a killed broker, not a power cut: its replicas do not stand apart either",
        "set three replicas in two racks, `min.insync.replicas=2` and the feature of the last row, or `flush.messages=1`",
        lambda facts: facts.get("flush.messages") != "1" and not _apart(facts),
    ),
    Unsafe(
        "kafka.few_replicas",
        "power",
        "replicas",
        "its messages are away while a broker is, and gone with its disk",
        "set three replicas (`kafka-reassign-partitions`, or `?replicas=3` before the topic is made)",
        lambda facts: int(facts["replicas"]) < COPIES,
    ),
    Unsafe(
        "kafka.min_insync_replicas",
        "power",
        "min.insync.replicas",
        "one machine may be all that has an acknowledged message",
        "set `min.insync.replicas=2`",
        lambda facts: int(facts["replicas"]) > 1 and _number(facts, "min.insync.replicas", 1) < IN_SYNC,
    ),
    Unsafe(
        "kafka.one_rack",
        "power",
        "racks",
        "one power cut may end all replicas at once",
        "set `broker.rack` on each broker, and spread the partitions over two racks or more",
        lambda facts: int(facts["replicas"]) >= COPIES and int(facts["racks"]) < RACKS,
    ),
    Unsafe(
        "kafka.no_eligible_replicas",
        "power",
        ELR,
        "the last replica in sync may come back without what it acknowledged",
        "run `kafka-features upgrade --feature eligible.leader.replicas.version=1`",
        lambda facts: int(facts["replicas"]) > 1 and facts[ELR] != "on",
    ),
)

CLUSTER = (
    Unsafe(
        "kafka.offsets_retention",
        "power",
        "offsets.retention.minutes",
        "the place of a group that is away for longer is forgotten; everything comes again, and inboxes end it",
        "set `offsets.retention.minutes` to 43200 (30 days) and more",
        lambda facts: 0 < _number(facts, "offsets.retention.minutes", 0) * 60 < REMEMBERED,
    ),
    Unsafe(
        "kafka.auto_create",
        "power",
        "auto.create.topics.enable",
        "a topic that was deleted comes back by itself, with other settings",
        "set `auto.create.topics.enable=false`",
        lambda facts: facts.get("auto.create.topics.enable") == "true",
    ),
)

TABLES = (*TOPIC, *CLUSTER)
