"""Unsafe settings on real engines: each is named with what is left of the promise, also when it was changed under a running app."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from linkspan import attestation
from linkspan.app import App
from linkspan.brokers.nats import NatsBroker
from linkspan.brokers.nats_settings import CONSUMER, SERVER, STREAM
from linkspan.errors import SetupError
from linkspan.ports import judged
from linkspan.runtime import system
from linkspan.stores.postgres import PostgresStore
from linkspan.stores.postgres_settings import SETTINGS as POSTGRESQL, judge
from linkspan.stores.sqlite_attest import SETTINGS as SQLITE, durability
from tests.integration.cli_orders import app as orders_app
from tests.integration.nats_cluster import NatsCluster
from tests.integration.nats_runner import NatsRunner, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

TOPIC, STREAM_NAME, GROUP = "shop.orders.v1.events", "shop_orders_v1_events", "g"
HOUR, SECOND = 3_600_000_000_000, 1_000_000_000

ON_STREAM: dict[str, dict[str, Any]] = {
    "nats.memory_storage": {"storage": "memory"},
    "nats.async_persist": {"persist_mode": "async"},
    "nats.no_ack": {"no_ack": True},
    "nats.drops_oldest": {"discard": "old", "max_msgs": 10},
    "nats.interest_retention": {"retention": "interest"},
    "nats.workqueue_retention": {"retention": "workqueue"},
    "nats.max_age": {"max_age": HOUR},
    "nats.duplicate_window": {"duplicate_window": SECOND},
    "nats.rollup": {"allow_rollup_hdrs": True},
    "nats.message_ttl": {"allow_msg_ttl": True},
}
ON_CONSUMER: dict[str, dict[str, Any]] = {
    "nats.ack_policy": {"ack_policy": "all"},
    "nats.max_deliver": {"max_deliver": 3},
    "nats.deliver_policy": {"deliver_policy": "new"},
    "nats.headers_only": {"headers_only": True},
    "nats.memory_consumer": {"mem_storage": True},
    "nats.inactive_threshold": {"inactive_threshold": HOUR},
    "nats.ack_wait": {"ack_wait": SECOND},
}
IN_CLUSTER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nats.one_replica": ({"num_replicas": 1}, {}),
    "nats.two_replicas": ({"num_replicas": 2}, {}),
    "nats.consumer_replicas": ({"num_replicas": 3}, {"num_replicas": 1}),
}
ELSEWHERE = {"nats.old_server", "nats.sync_interval", "nats.sync_unknown"}  # test_nats_setup, and below
LEVELS = {each.name: each.level for table in (SERVER, STREAM, CONSUMER) for each in table}


def test_every_setting_of_nats_is_tried() -> None:
    assert {*ON_STREAM, *ON_CONSUMER, *IN_CLUSTER, *ELSEWHERE} == set(LEVELS)


async def made(broker: NatsBroker, stream: Mapping[str, Any], consumer: Mapping[str, Any]) -> None:
    """Make the stream and the consumer as somebody else would, with one setting other than declared."""
    config = {"name": STREAM_NAME, "subjects": [f"{TOPIC}.>"], "storage": "file", "discard": "new", **stream}
    await broker.admin.request(f"STREAM.CREATE.{STREAM_NAME}", config)
    reader = {"name": GROUP, "durable_name": GROUP, "ack_policy": "explicit", "deliver_policy": "all", **consumer}
    await broker.admin.request(f"CONSUMER.CREATE.{STREAM_NAME}.{GROUP}", {"stream_name": STREAM_NAME, "action": "create", "config": reader})


def found_in(names: Mapping[str, str]) -> dict[str, str]:
    """Leave out what every server of this file has."""
    return {name: level for name, level in names.items() if name not in ELSEWHERE}


@pytest.mark.parametrize("name", [*ON_STREAM, *ON_CONSUMER])
async def test_unsafe_setting_of_nats_is_named(tmp_path: Path, name: str) -> None:
    async with NatsRunner(tmp_path) as server:
        options = {"sync_interval": "always"}
        broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password, options=options)
        await broker.open()
        await made(broker, ON_STREAM.get(name, {}), ON_CONSUMER.get(name, {}))

        found = await broker.attest([TOPIC], [(TOPIC, GROUP)])

        assert {each.name: each.level for each in found.findings} == {name: LEVELS[name]}
        assert found.level == LEVELS[name]
        assert TOPIC in found.findings[0].text
        await broker.aclose()


async def test_what_we_declare_on_nats_is_safe(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        options = {"sync_interval": "always"}
        broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password, options=options)
        await broker.open()
        await broker.declare([TOPIC], [(TOPIC, GROUP)])

        found = await broker.attest([TOPIC], [(TOPIC, GROUP)])

        assert (found.level, found.findings) == ("power", ())
        await broker.aclose()


@pytest.mark.parametrize("name", IN_CLUSTER)
async def test_replicas_that_are_too_few_are_named(tmp_path: Path, name: str) -> None:
    async with NatsCluster(tmp_path) as cluster:
        broker = NatsBroker(cluster.urls, runtime=system(), user=cluster.user, password=cluster.password)
        await broker.open()
        await made(broker, *IN_CLUSTER[name])

        found = await broker.attest([TOPIC], [(TOPIC, GROUP)])

        assert found_in({each.name: each.level for each in found.findings}) == {name: LEVELS[name]}
        await broker.aclose()


async def test_servers_tell_by_their_system_account_whether_they_sync(tmp_path: Path) -> None:
    """A login that may ask `$SYS` needs no monitoring port; all servers of the cluster have to answer."""
    accounts = """
    accounts {
      SYS { users: [{user: s, password: s}], exports: [{service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream}] }
      APP { jetstream: enabled, users: [{user: app, password: app}]
            imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ"}}] }
    }
    system_account: SYS
    """
    for sync, level in (("always", "power"), ("2m", "process")):
        folder = tmp_path / sync
        folder.mkdir()
        runner = NatsRunner(folder, sync=sync, more=accounts)
        config = folder / "server.conf"
        config.write_text(config.read_text().replace("authorization { user: u, password: secret }", ""))
        async with runner:
            broker = NatsBroker(runner.url, runtime=system(), user="app", password="app")
            await broker.open()
            found = await broker.attest()
            assert (found.level, found.facts["sync"].endswith("by $SYS")) == (level, True)
            await broker.aclose()


async def test_one_server_of_a_cluster_proves_nothing_for_the_others(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path) as cluster:
        port = free_port()
        first = cluster.nodes[0]
        first.kill()
        config = first.directory / "server.conf"
        config.write_text(config.read_text() + f'http: "127.0.0.1:{port}"\n')
        await cluster.start()
        options = {"monitoring": f"http://127.0.0.1:{port}"}
        broker = NatsBroker(cluster.urls, runtime=system(), user=cluster.user, password=cluster.password, options=options)
        await broker.open()
        await broker.declare([TOPIC], [])

        found = await broker.attest()

        assert (found.level, found.facts["sync"]) == ("process", "sync_always of 1 servers of 3 by /varz")
        await broker.aclose()


async def test_stream_changed_under_a_running_app_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attestation, "EVERY", 0.05)
    async with NatsRunner(tmp_path) as server:
        url = server.url.replace("://", f"://{server.user}:{server.password}@")
        app = App(*orders_app.services, broker=url, data=tmp_path / "data", http="127.0.0.1:0")
        async with app:
            assert await app.readiness.ready()
            topic = min({topic for each in app.running.values() for topic in each.topics})
            broker = app.broker
            assert isinstance(broker, NatsBroker)
            config = await broker.admin.stream(topic)
            await broker.admin.request(f"STREAM.UPDATE.{config['name']}", config | {"discard": "old", "max_msgs": 5})
            async with asyncio.timeout(20):
                while await app.readiness.ready():  # noqa: ASYNC110 - the look comes by itself
                    await asyncio.sleep(0.02)

            report = await app.readiness.report()
            assert report["durability"] == "broker promises 'none' only"
            assert topic in app.readiness.notes()["broker"]
            told = [
                each for each in caplog.records if each.levelno == logging.WARNING and each.__dict__.get("setting") == "nats.drops_oldest"
            ]
            assert len(told) == 1

            await broker.admin.request(f"STREAM.UPDATE.{config['name']}", config)
            async with asyncio.timeout(20):
                while not await app.readiness.ready():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)


async def test_app_on_a_stream_that_may_lose_messages_does_not_start(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        url = server.url.replace("://", f"://{server.user}:{server.password}@")
        settings: dict[str, Any] = {"broker": url, "data": tmp_path / "data", "http": "127.0.0.1:0"}
        async with App(*orders_app.services, **settings) as app:
            broker = app.broker
            assert isinstance(broker, NatsBroker)
            for topic in {topic for each in app.running.values() for topic in each.topics}:
                config = await broker.admin.stream(topic)
                await broker.admin.request(f"STREAM.UPDATE.{config['name']}", config | {"discard": "old", "max_bytes": 100_000})

        with pytest.raises(SetupError, match=r"The broker promises 'none'.*drops|may lose the oldest.*To do: set `discard: new`"):
            await App(*orders_app.services, **settings).start()
        with pytest.raises(SetupError, match="LINKSPAN_DURABILITY=any"):
            await App(*orders_app.services, **settings, durability="power").start()
        async with App(*orders_app.services, **settings, durability="any") as app:
            assert app.readiness.notes()["broker"].startswith("none: ")


# --- SQLite

PRAGMAS = {
    "sqlite.synchronous": ["pragma synchronous = normal", "pragma synchronous = off"],
    "sqlite.journal_off": ["pragma journal_mode = off", "pragma journal_mode = memory"],
    "sqlite.rollback_journal": ["pragma journal_mode = delete", "pragma journal_mode = truncate", "pragma journal_mode = persist"],
    "sqlite.writable_schema": ["pragma writable_schema = 1"],
}
BY_FACTS = {
    "sqlite.memory_file_system": {"file_system": "tmpfs"},
    "sqlite.network_file_system": {"file_system": "nfs4"},
    "sqlite.fuse_file_system": {"file_system": "fuse.sshfs"},
    "sqlite.no_barriers": {"mount_options": "rw,nobarrier"},
    "sqlite.full_sync_of_macos": {"platform": "darwin", "fullfsync": "0"},
}


def test_every_setting_of_sqlite_is_tried() -> None:
    assert {*PRAGMAS, *BY_FACTS} == {each.name for each in SQLITE}


@pytest.mark.parametrize(("name", "pragma"), [(name, pragma) for name, pragmas in PRAGMAS.items() for pragma in pragmas])
def test_unsafe_setting_of_sqlite_is_named(tmp_path: Path, name: str, pragma: str) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    before = {each.name for each in durability(connection, path).findings}
    connection.execute(pragma)

    found = durability(connection, path)

    assert name not in before
    assert name in {each.name for each in found.findings}
    connection.close()


@pytest.mark.parametrize(("name", "facts"), BY_FACTS.items())
def test_place_that_keeps_little_is_named(name: str, facts: dict[str, str]) -> None:
    sound = {"synchronous": "2", "journal_mode": "wal", "file_system": "ext4", "mount_options": "rw", "platform": "linux", "fullfsync": "0"}

    assert judged(SQLITE, sound, "x") == []
    assert [each.name for each in judged(SQLITE, sound | facts, "x")] == [name]


# --- PostgreSQL, by its facts; the store's own tests ask a real server

SOUND = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on", "wal_level": "replica"}
SOUND |= {"in_recovery": "false", "unlogged": "", "standbys": "0", "synchronous_standbys": "0", "server_version": "16.2"}
UNSAFE: dict[str, dict[str, str]] = {
    "postgresql.fsync": {"fsync": "off"},
    "postgresql.synchronous_commit_off": {"synchronous_commit": "off"},
    "postgresql.synchronous_commit_local": {"synchronous_commit": "local", "synchronous_standby_names": "*"},
    "postgresql.synchronous_commit_remote_write": {"synchronous_commit": "remote_write", "synchronous_standby_names": "*"},
    "postgresql.asynchronous_failover": {"standbys": "1"},
    "postgresql.full_page_writes": {"full_page_writes": "off"},
    "postgresql.data_sync_retry": {"data_sync_retry": "on"},
    "postgresql.unlogged_tables": {"unlogged": "linkspan_outbox"},
    "postgresql.standby": {"in_recovery": "true"},
    "postgresql.zero_damaged_pages": {"zero_damaged_pages": "on"},
    "postgresql.ignore_checksum_failure": {"ignore_checksum_failure": "on"},
    "postgresql.data_checksums": {"data_checksums": "off"},
    "postgresql.wal_level": {"wal_level": "minimal"},
    "postgresql.old_server": {"server_version": "13.22"},
}


def test_every_setting_of_postgresql_is_tried_and_a_sound_server_has_none() -> None:
    assert set(UNSAFE) == {each.name for each in POSTGRESQL}
    assert judge(SOUND).level == "power"
    assert judge(SOUND).findings == ()


@pytest.mark.parametrize(("name", "facts"), UNSAFE.items())
def test_unsafe_setting_of_postgresql_is_named(name: str, facts: dict[str, str]) -> None:
    level = next(each.level for each in POSTGRESQL if each.name == name)

    assert [(each.name, each.level) for each in judge(SOUND | facts).findings] == [(name, level)]


async def test_settings_of_a_running_postgresql_are_read(postgres: PostgresRunner) -> None:
    store = PostgresStore(postgres.url(schema="attested"), name="shop", runtime=system())
    await store.open()
    connection = await asyncpg.connect(postgres.url())
    try:
        assert "postgresql.unlogged_tables" not in {each.name for each in (await store.attest()).findings}
        await connection.execute("alter table attested.linkspan_outbox set unlogged")
        found = await store.attest()
    finally:
        await connection.close()
        await store.aclose()

    assert found.level == "none"
    assert "postgresql.unlogged_tables" in {each.name for each in found.findings}
