"""What an acknowledgement of a Kafka cluster is worth: read from the cluster, never assumed.

Kafka does not sync before it acknowledges. What survives a power cut is either what a topic syncs itself (`flush.messages=1`), or
what other machines still have: three replicas, two of them in sync before an acknowledgement, in more than one rack, no election of
a replica that was behind, and eligible leader replicas (KIP-966), without which the last replica in sync may come back empty and be
followed by the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from linkspan.brokers.kafka_features import features
from linkspan.brokers.kafka_settings import CLUSTER, ELR, TOPIC
from linkspan.errors import Code, Error
from linkspan.ports import Durability, Finding, attested, judged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from linkspan.brokers.kafka_admin import Admin
    from linkspan.brokers.kafka_options import KafkaOptions

__all__ = ["TopicFacts", "attest", "judge"]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a cluster says of a topic: its settings, its fewest replicas, and the fewest racks that a partition lies in."""

    name: str
    settings: Mapping[str, str]
    replicas: int
    racks: int


async def attest(admin: Admin, topics: Iterable[str], options: KafkaOptions) -> Durability:
    """Ask the cluster for itself and its topics."""
    found: list[TopicFacts] = []
    more: list[Finding] = []
    for topic in topics:
        try:
            found.append(await _facts(admin, topic))
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            more.append(Finding("kafka.no_topic", "power", f"topic '{topic}' does not exist yet", "start the app once"))
    broker = await admin.first_broker()
    cluster = await admin.settings("broker", str(broker.id))
    try:
        on = await features(broker.host, broker.port, options.tls())
    except (OSError, TimeoutError, ValueError) as error:
        on = None
        text = f"the cluster's features could not be read ({type(error).__name__})"
        more.append(Finding("kafka.features_unknown", "power", text, f"let this program reach {broker.host}:{broker.port}"))
    return judge(found, cluster, on, more)


async def _facts(admin: Admin, topic: str) -> TopicFacts:
    described = await admin.topic(topic)
    replicas = min(len(each.replicas) for each in described.partitions)
    racks = min(len({node.rack for node in each.replicas if node.rack}) for each in described.partitions)
    return TopicFacts(topic, await admin.settings("topic", topic), replicas, racks)


def judge(
    topics: Iterable[TopicFacts], cluster: Mapping[str, str], on: Mapping[str, int] | None, more: Iterable[Finding] = ()
) -> Durability:
    """Say what the facts amount to; `on` are the cluster's features, None where they are not known."""
    elr = "unknown" if on is None else "on" if on.get(ELR, 0) else "off"
    findings = [*judged(CLUSTER, cluster, "The cluster"), *more]
    replicas: set[int] = set()
    for topic in topics:
        facts = {**topic.settings, "replicas": topic.replicas, "racks": topic.racks, ELR: elr}
        replicas.add(topic.replicas)
        findings += judged(TOPIC, facts, f"Topic '{topic.name}'")
    if not replicas:
        text = "no topic was asked about: what it is worth depends on each one's settings"
        findings.append(Finding("kafka.nothing_asked", "process", text, "ask while the app runs"))
    synced = replicas and not any(each.name == "kafka.not_synced" for each in findings)
    told = {"replicas": ",".join(str(count) for count in sorted(replicas)) or "none", "elr": elr}
    return attested(
        "kafka", findings, told | {"sync": "each message, or replicas that stand apart" if synced else "by the operating system"}
    )
