"""What an acknowledgement of a Kafka cluster is worth: read from the cluster, never assumed.

Kafka does not sync before it acknowledges. What survives a power cut is either what a topic syncs itself (`flush.messages=1`), or
what other machines still have: three replicas, two of them in sync before an acknowledgement, in more than one rack, no election of
a replica that was behind, and eligible leader replicas (KIP-966), without which the last replica in sync may come back empty and be
followed by the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from linkspan.brokers.kafka_features import features
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Durability

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from linkspan.brokers.kafka_admin import Admin
    from linkspan.brokers.kafka_options import KafkaOptions

__all__ = ["TopicFacts", "attest", "judge", "judge_topic"]

COPIES, IN_SYNC, RACKS = 3, 2, 2
LONGEST_REDRIVE = 30 * 24 * 3600
"""Seconds that the inbox remembers; a topic or a group's place that is kept for less may be gone before it is read."""
ELR = "eligible.leader.replicas.version"
_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a cluster says of a topic: its settings, its fewest replicas, and the fewest racks that a partition lies in."""

    name: str
    settings: Mapping[str, str]
    replicas: int
    racks: int


@dataclass(slots=True)
class _Verdict:
    synced: bool = True
    replicated: bool = True
    reasons: list[str] = field(default_factory=list[str])


async def attest(admin: Admin, topics: Iterable[str], options: KafkaOptions) -> Durability:
    """Return the level; raise `SetupError` for settings that cannot keep any promise."""
    found: list[TopicFacts] = []
    missing: list[str] = []
    for topic in topics:
        try:
            found.append(await _facts(admin, topic))
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            missing.append(f"topic '{topic}' does not exist yet")
    broker = await admin.first_broker()
    cluster = await admin.settings("broker", str(broker.id))
    try:
        on = await features(broker.host, broker.port, options.tls())
    except (OSError, TimeoutError, ValueError) as error:
        on = None
        missing.append(f"the cluster's features could not be read ({type(error).__name__})")
    verdict = judge(found, cluster, on)
    return Durability(verdict.engine, verdict.level, (*verdict.reasons, *missing), verdict.facts)


async def _facts(admin: Admin, topic: str) -> TopicFacts:
    described = await admin.topic(topic)
    replicas = min(len(each.replicas) for each in described.partitions)
    racks = min(len({node.rack for node in each.replicas if node.rack}) for each in described.partitions)
    return TopicFacts(topic, await admin.settings("topic", topic), replicas, racks)


def judge(topics: Iterable[TopicFacts], cluster: Mapping[str, str], on: Mapping[str, int] | None) -> Durability:
    """Say what the facts amount to; `on` are the cluster's features, None where they are not known."""
    verdict = _Verdict()
    replicas: set[int] = set()
    for topic in topics:
        replicas.add(topic.replicas)
        judge_topic(topic, verdict)
    if on is not None and on.get(ELR, 0) < 1 and max(replicas, default=1) > 1:
        verdict.replicated = False
        verdict.reasons.append(f"feature '{ELR}' is off: the last replica in sync may come back without what it acknowledged")
    verdict.replicated = verdict.replicated and on is not None
    kept = int(cluster.get("offsets.retention.minutes", "0")) * 60
    if 0 < kept < LONGEST_REDRIVE:
        text = (
            f"offsets.retention.minutes keeps the place of a group that is away for {kept // _DAY} days: then it starts from the beginning"
        )
        verdict.reasons.append(text)
    if cluster.get("auto.create.topics.enable") == "true":
        verdict.reasons.append("auto.create.topics.enable is on: a topic that was deleted comes back with other settings")
    power = bool(replicas) and (verdict.synced or verdict.replicated)
    if not replicas:
        verdict.reasons.insert(0, "no topic was asked about: what it is worth depends on each one's settings, ask while the app runs")
    elif not power:
        verdict.reasons.insert(0, "an acknowledged message survives a killed broker, not a power cut")
    facts = {
        "replicas": ",".join(str(count) for count in sorted(replicas)) or "none",
        "sync": "each message" if verdict.synced and replicas else "by the operating system",
        "elr": "unknown" if on is None else "on" if on.get(ELR, 0) else "off",
    }
    return Durability("kafka", "power" if power else "process", tuple(verdict.reasons), facts)


def judge_topic(topic: TopicFacts, verdict: _Verdict) -> None:
    """Lower the verdict by one topic. Raises `SetupError` where it may lose what it acknowledged while everything runs."""
    settings, name = topic.settings, topic.name
    unclean = settings.get("unclean.leader.election.enable") == "true"
    bounded = int(settings.get("retention.bytes", "-1")) > 0
    for found, what in ((unclean, "unclean.leader.election.enable 'true'"), (bounded, "a limit 'retention.bytes'")):
        if found:
            raise SetupError(f"Topic '{name}' has {what} and may lose messages: change it, or make a new one.")
    if "compact" in settings.get("cleanup.policy", ""):
        raise SetupError(f"Topic '{name}' has cleanup.policy 'compact' and loses all but the last message of a key: change it to 'delete'.")
    if settings.get("flush.messages") != "1":
        verdict.synced = False
    in_sync = int(settings.get("min.insync.replicas", "1"))
    lacking = [
        (topic.replicas < COPIES, f"topic '{name}' has {topic.replicas} replicas of {COPIES}"),
        (in_sync < IN_SYNC, f"topic '{name}' has min.insync.replicas {in_sync} of {IN_SYNC}: one machine may be all that has a message"),
        (topic.replicas >= COPIES and topic.racks < RACKS, f"topic '{name}' has its replicas in one rack, or broker.rack is not set"),
    ]
    for found, reason in lacking:
        if found:
            verdict.replicated = False
            verdict.reasons.append(reason)
    if 0 <= (kept := int(settings.get("retention.ms", "-1")) // 1000) < LONGEST_REDRIVE:
        verdict.reasons.append(f"topic '{name}' keeps messages for {kept // _DAY} days: a group that is away longer never gets them")
