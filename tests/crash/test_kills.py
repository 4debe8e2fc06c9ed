"""Fifty kills over three topologies: services at random and at commit points, brokers one at a time and all at once; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proof.kills import one_batch
from tests.kafka.servers import needs_kafka

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(300)

SEED = 1


async def test_sqlite_and_one_nats_server(tmp_path: Path) -> None:
    found = await one_batch("sqlite-nats", SEED, 26, tmp_path / "run", None)

    assert found["violations"] == []
    assert found["kills"] >= 26
    assert found["sums"]["acknowledged"] > 0


async def test_postgresql_and_three_nats_servers(tmp_path: Path, postgres: PostgresRunner) -> None:
    found = await one_batch("postgres-nats", SEED, 12, tmp_path / "run_nats", postgres)

    assert found["violations"] == []
    assert found["kills"] >= 12
    assert found["sums"]["acknowledged"] > 0


async def test_postgresql_and_three_kafka_brokers(tmp_path: Path, postgres: PostgresRunner) -> None:
    needs_kafka()
    found = await one_batch("postgres-kafka", SEED, 12, tmp_path / "run_kafka", postgres)

    assert found["violations"] == []
    assert found["kills"] >= 12
    assert found["sums"]["acknowledged"] > 0
