"""What librdkafka is given, and what a cluster's settings amount to."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from linkspan.brokers import broker_for
from linkspan.brokers.kafka_attest import TopicFacts, judge
from linkspan.brokers.kafka_features import read_features
from linkspan.brokers.kafka_options import KafkaOptions
from linkspan.brokers.kafka_settings import TABLES
from linkspan.errors import SetupError
from linkspan.ports.durability import LEVELS
from linkspan.runtime import system

SAFE = {
    "cleanup.policy": "delete",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "flush.messages": "9223372036854775807",
}
TOPIC = TopicFacts("t", SAFE, replicas=3, racks=3)
CLUSTER = {"offsets.retention.minutes": str(60 * 24 * 60), "auto.create.topics.enable": "false"}
ELR = {"eligible.leader.replicas.version": 1}


def changed(**changes: str) -> TopicFacts:
    return replace(TOPIC, settings=SAFE | {name.replace("_", "."): value for name, value in changes.items()})


def test_an_address_may_hold_several_hosts_a_login_and_options() -> None:
    options = KafkaOptions("kafka://me%40x:a%2Fb@one:9092,two:9093?sasl.mechanism=PLAIN&replicas=2&publish_timeout=3")

    found = options.sender()

    assert found["bootstrap.servers"] == "one:9092,two:9093"
    assert (found["sasl.username"], found["sasl.password"], found["sasl.mechanism"]) == ("me@x", "a/b", "PLAIN")
    assert found["security.protocol"] == "sasl_plaintext"
    assert (options.replicas, options.publish_timeout) == (2, 3.0)
    assert "replicas" not in found


def test_kafkas_is_tls() -> None:
    options = KafkaOptions("kafkas://one:9092", options={"ssl.ca.location": "/ca.pem"})

    assert options.sender()["security.protocol"] == "ssl"
    assert options.tls() == {"ssl.ca.location": "/ca.pem"}
    assert KafkaOptions("kafka://one:9092").tls() is None
    assert KafkaOptions("kafkas://u:p@one:9092").reader("g")["security.protocol"] == "sasl_ssl"


def test_what_promises_rest_on_is_set() -> None:
    options = KafkaOptions("kafka://one:9092")

    assert (options.sender()["acks"], options.sender()["enable.idempotence"]) == ("all", True)
    reader = options.reader("g")
    assert (reader["enable.auto.commit"], reader["enable.auto.offset.store"], reader["check.crcs"]) == (False, False, True)
    assert reader["auto.offset.reset"] == "earliest"


@pytest.mark.parametrize(
    "unsafe",
    [
        "acks=1",
        "enable.idempotence=false",
        "enable.auto.commit=true",
        "enable.auto.offset.store=true",
        "check.crcs=false",
        "auto.offset.reset=latest",
    ],
)
def test_an_unsafe_option_is_refused(unsafe: str) -> None:
    with pytest.raises(SetupError, match=unsafe.partition("=")[0]):
        KafkaOptions(f"kafka://one:9092?{unsafe}")


@pytest.mark.parametrize("wrong", ["kafka://", "kafka://one?replicas=many", "kafka://one?publish_timeout=soon"])
def test_a_wrong_address_is_refused(wrong: str) -> None:
    with pytest.raises(SetupError):
        broker_for(wrong, system())


async def test_options_that_librdkafka_does_not_know_are_refused() -> None:
    with pytest.raises(SetupError, match="not understood"):
        await broker_for("kafka://127.0.0.1:1?no.such.option=1", system()).open()


def test_replicated_over_racks_survives_a_power_cut() -> None:
    assert judge([TOPIC], CLUSTER, ELR).level == "power"
    assert judge([TOPIC], CLUSTER, ELR).reasons == ()


def test_a_topic_that_syncs_each_message_survives_a_power_cut_alone() -> None:
    alone = TopicFacts("t", SAFE | {"flush.messages": "1", "min.insync.replicas": "1"}, replicas=1, racks=0)

    assert judge([alone], CLUSTER, ELR).level == "power"


UNSAFE: dict[str, tuple[TopicFacts, dict[str, str], dict[str, int]]] = {
    "kafka.unclean_election": (changed(unclean_leader_election_enable="true"), CLUSTER, ELR),
    "kafka.compacted": (changed(cleanup_policy="compact,delete"), CLUSTER, ELR),
    "kafka.retention_bytes": (changed(retention_bytes="1000000"), CLUSTER, ELR),
    "kafka.retention": (changed(retention_ms=str(7 * 24 * 3600 * 1000)), CLUSTER, ELR),
    "kafka.not_synced": (replace(TOPIC, racks=0), CLUSTER, ELR),
    "kafka.few_replicas": (replace(TOPIC, replicas=2), CLUSTER, ELR),
    "kafka.min_insync_replicas": (changed(min_insync_replicas="1"), CLUSTER, ELR),
    "kafka.one_rack": (replace(TOPIC, racks=1), CLUSTER, ELR),
    "kafka.no_eligible_replicas": (TOPIC, CLUSTER, {}),
    "kafka.offsets_retention": (TOPIC, CLUSTER | {"offsets.retention.minutes": "10080"}, ELR),
    "kafka.auto_create": (TOPIC, CLUSTER | {"auto.create.topics.enable": "true"}, ELR),
}


def test_each_unsafe_setting_is_tried() -> None:
    assert UNSAFE.keys() == {each.name for each in TABLES}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_setting_is_named_with_what_is_left(name: str) -> None:
    topic, cluster, on = UNSAFE[name]
    (row,) = (each for each in TABLES if each.name == name)

    found = judge([TOPIC, topic], cluster, on)

    finding = next(each for each in found.findings if each.name == name)
    assert row.setting in finding.text
    assert finding.cure == row.cure
    assert LEVELS.index(found.level) <= LEVELS.index(row.level)


@pytest.mark.parametrize("name", ["kafka.few_replicas", "kafka.min_insync_replicas", "kafka.one_rack", "kafka.no_eligible_replicas"])
def test_what_keeps_replicas_together_leaves_no_power_cut_to_be_survived(name: str) -> None:
    topic, cluster, on = UNSAFE[name]

    assert judge([topic], cluster, on).level == "process"
    assert judge([replace(topic, settings={**topic.settings, "flush.messages": "1"})], cluster, on).level == "power"


@pytest.mark.parametrize("name", ["kafka.unclean_election", "kafka.compacted", "kafka.retention_bytes"])
def test_a_topic_that_may_lose_messages_while_all_runs_is_worth_nothing(name: str) -> None:
    assert judge([TOPIC, UNSAFE[name][0]], CLUSTER, ELR).level == "none"


def test_without_a_topic_nothing_is_claimed() -> None:
    found = judge([], CLUSTER, ELR)

    assert found.level == "process"
    assert "no topic" in found.reasons[0]


def test_unknown_features_lower_the_level() -> None:
    assert judge([TOPIC], CLUSTER, None).level == "process"


def test_features_are_read_from_the_tagged_fields() -> None:
    keys = b"\x02" + struct.pack(">hhh", 18, 0, 4) + b"\x00"
    finalized = b"\x02" + bytes([len("metadata.version") + 1]) + b"metadata.version" + struct.pack(">hh", 29, 29) + b"\x00"
    tags = b"\x02" + b"\x01\x08" + bytes(8) + b"\x02" + bytes([len(finalized)]) + finalized

    assert read_features(struct.pack(">ih", 1, 0) + keys + bytes(4) + tags) == {"metadata.version": 29}


@pytest.mark.parametrize("nonsense", [b"", b"\xff" * 9, struct.pack(">ih", 1, 35), struct.pack(">ih", 1, 0) + b"\x7f"])
def test_an_answer_that_is_none_is_refused(nonsense: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it tells no more than a length
        read_features(nonsense)
