"""Order per key and one effect each, in small: `make proof` runs the same with 100,000 events, or with millions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from linkspan.incoming import work
from proof import effects, order

if TYPE_CHECKING:
    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(400)


async def test_keys_keep_their_order_while_instances_are_killed_and_stopped(postgres: PostgresRunner) -> None:
    found = await order.one(1, 4_000, postgres)

    assert found["events"] >= 4_000
    assert (found["lost"], found["inverted"], found["letters"], found.get("failed")) == (0, 0, 0, None)


def test_inversions_and_holes_are_counted(postgres: PostgresRunner) -> None:
    rows = [("a", 1), ("a", 2), ("b", 2), ("b", 1), ("c", 1), ("c", 3)]
    with psycopg.connect(postgres.url(), autocommit=True) as database:
        database.execute("create temporary table effect (position serial, key text, number integer)")
        with database.cursor() as cursor:
            cursor.executemany("insert into effect (key, number) values (%s, %s)", rows)
        assert database.execute(order.INVERTED).fetchone() == (3,)


async def test_duplicates_forgotten_acknowledgements_and_a_week_double_nothing() -> None:
    found = await effects.one(1, 10_000)

    assert (found["events"], found["effects"]) == (10_000, 10_000)
    assert (found["lost"], found["doubled"], found["inverted"]) == (0, 0, 0)
    assert found["kills"] == 2
    assert found["redriven"] > 0
    assert found["recognised"] >= found["echoed"] >= 2_000


async def test_an_inbox_that_knows_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1_000_000))
    monkeypatch.setattr(work, "claim", lambda service, source, id_: (f"{service}<{source}", f"{id_}-{next(numbers)}"))

    assert (await effects.one(1, 500))["doubled"] > 0
