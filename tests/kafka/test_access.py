"""Logins and TLS: what the URL says is what librdkafka does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from linkspan.brokers import broker_for
from linkspan.brokers.kafka_features import features
from linkspan.brokers.kafka_settings import TABLES
from linkspan.errors import Code, Error, SetupError
from linkspan.runtime import system
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

LOGINS = (
    'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="secret" '
    'user_admin="secret" user_app="hunter2";'
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[KafkaCluster]:
    """One broker that speaks plaintext without a login, SASL/PLAIN, and SASL over TLS."""
    needs_kafka()
    folder = tmp_path_factory.mktemp("access")
    certificate = authority.issue_cert("127.0.0.1")
    store = folder / "server.pem"
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    store.write_bytes(plain + b"".join(each.bytes() for each in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    made = KafkaCluster(folder / "kafka")
    made.listen({"LOGIN": "SASL_PLAINTEXT", "SECURE": "SASL_SSL"})
    made.more(
        {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": LOGINS,
            "listener.name.secure.plain.sasl.jaas.config": LOGINS,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
        }
    )
    made.folder = folder
    asyncio.run(made.start())
    yield made
    made.kill()


async def opened(url: str) -> AsyncGenerator[Any]:
    broker = broker_for(url, system())
    await broker.open()
    yield broker
    await broker.aclose()


async def test_a_login_in_the_url_is_used(cluster: KafkaCluster) -> None:
    async for broker in opened(f"kafka://admin:secret@{cluster.at('LOGIN')}?sasl.mechanism=PLAIN"):
        await broker.declare(["access.test.events"], [])


async def test_tls_with_a_login(cluster: KafkaCluster) -> None:
    url = f"kafkas://admin:secret@{cluster.at('SECURE')}?sasl.mechanism=PLAIN&ssl.ca.location={cluster.folder}/ca.pem"
    async for broker in opened(url):
        await broker.declare(["access.test.events"], [])
        assert (await broker.attest()).facts["elr"] == "on"


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("unclean.leader.election.enable", "true", "kafka.unclean_election"),
        ("cleanup.policy", "compact", "kafka.compacted"),
        ("retention.bytes", "1000000", "kafka.retention_bytes"),
        ("retention.ms", "3600000", "kafka.retention"),
    ],
)
async def test_an_unsafe_setting_of_a_topic_is_named_though_it_was_changed_at_run_time(
    cluster: KafkaCluster, setting: str, value: str, name: str
) -> None:
    topic = f"access.{name.partition('.')[2]}.events"
    admin: Any = AdminClient({"bootstrap.servers": cluster.addresses, "log_level": 0})
    async for broker in opened(cluster.url):
        await broker.declare([topic], [])
        assert name not in [each.name for each in (await broker.attest([topic])).findings]

        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        await asyncio.wrap_future(admin.incremental_alter_configs([resource])[resource])
        found = await broker.attest([topic])
        async with asyncio.timeout(10):
            while name not in [each.name for each in found.findings]:
                await asyncio.sleep(0.05)  # until the broker hears of it from its controller
                found = await broker.attest([topic])

        row = next(each for each in TABLES if each.name == name)
        assert found.level == row.level


async def test_a_wrong_password_is_a_mistake_of_the_setup(cluster: KafkaCluster) -> None:
    with pytest.raises(SetupError, match="refused the login") as caught:
        await broker_for(f"kafka://admin:wr0ng@{cluster.at('LOGIN')}?sasl.mechanism=PLAIN", system()).open()
    assert "wr0ng" not in str(caught.value)


async def test_a_certificate_of_nobody_that_we_trust_is_not_accepted(cluster: KafkaCluster) -> None:
    with pytest.raises((Error, SetupError)):
        await broker_for(f"kafkas://admin:secret@{cluster.at('SECURE')}?sasl.mechanism=PLAIN", system()).open()


async def test_a_login_that_may_not_create_topics_says_who_should(cluster: KafkaCluster) -> None:
    await allow(cluster, "access.denied.", AclOperation.DESCRIBE)
    async for broker in opened(f"kafka://app:hunter2@{cluster.at('LOGIN')}?sasl.mechanism=PLAIN"):
        with pytest.raises(SetupError, match="broker apply"):
            await broker.declare(["access.denied.events"], [])


async def test_a_login_without_rights_is_told_so(cluster: KafkaCluster) -> None:
    admin: Any = AdminClient({"bootstrap.servers": cluster.addresses, "log_level": 0})
    await asyncio.wrap_future(admin.create_topics([NewTopic("access.shut.events", 64)])["access.shut.events"])
    async for broker in opened(f"kafka://app:hunter2@{cluster.at('LOGIN')}?sasl.mechanism=PLAIN"):
        with pytest.raises(Error) as caught:
            await broker.declare(["access.shut.events"], [])
        assert caught.value.code is Code.PERMISSION_DENIED


async def allow(cluster: KafkaCluster, prefix: str, operation: AclOperation) -> None:
    admin: Any = AdminClient({"bootstrap.servers": cluster.addresses, "log_level": 0})
    rule = AclBinding(ResourceType.TOPIC, prefix, ResourcePatternType.PREFIXED, "User:app", "*", operation, AclPermissionType.ALLOW)
    await asyncio.wrap_future(admin.create_acls([rule])[rule])


async def test_features_are_read_from_a_real_broker(cluster: KafkaCluster) -> None:
    found = await features("127.0.0.1", cluster.servers[0].port, None)

    assert found["eligible.leader.replicas.version"] == 1
    assert found["metadata.version"] > 20
