"""Order and completeness of the outbox on a real PostgreSQL: the six interleavings that break the well-known designs, stepped by hand.

Two or three stores stand for as many processes. Where a transaction must stand still in its very commit, a deferred trigger of the user's
table waits there for an advisory lock.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from linkspan.envelope import LANES, lane_of
from linkspan.ports import OUTBOX, Outcome, Outgoing
from linkspan.runtime import system
from linkspan.stores.postgres import PostgresStore
from linkspan.stores.postgres_outbox import share
from linkspan.stores.postgres_sql import QUERIES
from linkspan.testing.store_probe import Settled, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.integration.postgres_runner import PostgresRunner

SCRIPTS = [
    (
        "gate",
        """
        create table row (id text primary key);
        create table gated (gate integer);
        create function wait_at_gate() returns trigger language plpgsql as $$
            begin perform pg_advisory_xact_lock(77, new.gate); return null; end;
        $$;
        create constraint trigger gate after insert on gated deferrable initially deferred for each row execute function wait_at_gate();
        """,
    )
]
GATED = "insert into gated values (?)"
ROW = "insert into row values (?)"


def out(id_: str, key: str) -> Outgoing:
    return Outgoing("shop.events", "Placed", lane_of(key), id_, key, b"", b"")


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    return request.node.name[:50].lower().replace("[", "_").replace("]", "")


@asynccontextmanager
async def stores(postgres: PostgresRunner, schema: str, count: int = 2) -> AsyncGenerator[list[PostgresStore]]:
    """Open several stores on one schema, as that many processes would."""
    async with AsyncExitStack() as stack:
        found = [PostgresStore(postgres.url(schema=schema), name="shop", runtime=system()) for _ in range(count)]
        for store in found:
            await store.open()
            stack.push_async_callback(store.aclose)
            await store.migrate(SCRIPTS)
        yield found


@asynccontextmanager
async def gate(postgres: PostgresRunner, number: int) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
    """Close a gate, until the end."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("select pg_advisory_lock(77, $1)", number)
    try:
        yield connection
    finally:
        await connection.close()


async def until(connection: asyncpg.Connection[asyncpg.Record], condition: str) -> None:
    """Wait until the server sees that somebody waits for a lock."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(f"select count(*) from pg_locks where not granted and {condition}"):  # noqa: ASYNC110 - another process says nothing
            await asyncio.sleep(0.005)


STANDS_IN_COMMIT = "locktype = 'advisory' and classid = 77"
WAITS_FOR_A_ROW = "locktype = 'transactionid'"


async def ids(store: PostgresStore) -> list[str]:
    return [m.id for m in await store.unsent(0, 1000)]


async def test_t1_row_that_commits_late_with_a_lower_position_is_found(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two), gate(postgres, 1) as closed:
        slow = done.unit(statements=[(GATED, (1,))], messages=[out("slow", "a")])
        one.submit(slow)
        await until(closed, STANDS_IN_COMMIT)
        fast = done.unit(messages=[out("fast", "b")])
        assert await done.submit(two, fast) == [Outcome.COMMITTED]
        assert await ids(two) == ["fast"]
        await closed.close()
        await done.submit(one, done.unit())
        assert slow.outcome is Outcome.COMMITTED
        assert slow.messages[0].position < fast.messages[0].position
        assert await ids(two) == ["slow", "fast"]


async def test_t2_position_drawn_before_the_transaction_had_its_number_is_found(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two), gate(postgres, 2) as drawer:
        await done.submit(one, done.unit(messages=[out("first", "z")]))  # primes the sequence: every 32nd draw takes a transaction number
        name = f"{schema}.linkspan_outbox"
        async with drawer.transaction():
            drawn = await drawer.fetchval("select nextval(pg_get_serial_sequence($1, 'position'))", name)
            await done.submit(two, done.unit(messages=[out("later", "b")]))
            assert await ids(one) == ["first", "later"]
            await drawer.execute(
                f"insert into {name} (lane, position, format, at, topic, name, id, key, sequence, headers, data) "
                f"values (1, {drawn}, 1, 0, 'shop.events', 'Placed', 'early', 'a', 1, '', '')"
            )
        assert await ids(one) == ["first", "early", "later"]


async def test_pages_of_a_full_outbox_are_in_order_and_whole_whatever_lanes_are_fullest(postgres: PostgresRunner, schema: str) -> None:
    """A look takes a few rows of each lane, and gives no row while one before it was not read."""
    done, chance = Settled(), random.Random(11)
    async with stores(postgres, schema, 1) as (one,):
        keys = [*["a"] * 300, *["b"] * 60, *(f"k{number}" for number in range(300))]
        chance.shuffle(keys)
        await done.submit(one, done.unit(messages=[out(f"m{number}", key) for number, key in enumerate(keys)]))
        for lanes in (None, [lane_of("a"), lane_of("b")], list(range(0, LANES, 2))):
            wanted = [f"m{number}" for number, key in enumerate(keys) if lanes is None or lane_of(key) in lanes]
            for limit in (7, 64, 100, 1000):
                found: list[Outgoing] = []
                while page := await one.unsent(found[-1].position if found else 0, limit, lanes):
                    assert len(page) == min(limit, len(wanted) - len(found))
                    found += page
                assert [message.id for message in found] == wanted


async def test_a_look_at_a_full_outbox_reads_not_much_more_than_it_gives(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema, 1) as (one,):
        await done.submit(one, done.unit(messages=[out(f"m{number}", f"k{number}") for number in range(10_000)]))
        connection = await asyncpg.connect(postgres.url(), server_settings={"search_path": schema})
        await connection.execute("vacuum analyze linkspan_outbox")
        sql = f"explain (analyze, format json) {QUERIES['outbox_unsent']}"
        page = (0, 1000, list(range(LANES)), share(1000, LANES))
        plan = await connection.fetchval(sql, *page, [])
        first = [message.position for message in await one.unsent(0, 1000)]
        behind = [message.position for message in await one.unsent(first[-1], 1000)]
        rows = await connection.fetch(QUERIES["outbox_unsent"], *page, first)  # sent, and not deleted yet: not read, and given, once more
        await connection.close()
        assert 1000 <= rows_read(json.loads(plan)[0]["Plan"]) <= 4000
        assert [row["position"] for row in rows] == behind


def rows_read(plan: dict[str, Any]) -> float:
    """Add up what the scans of the outbox gave."""
    own = plan["Actual Rows"] * plan["Actual Loops"] if plan.get("Relation Name") == "linkspan_outbox" else 0
    return float(own + sum(rows_read(part) for part in plan.get("Plans", ())))


async def test_t3_nothing_is_lost_while_transactions_overlap(postgres: PostgresRunner, schema: str) -> None:
    done, chance = Settled(), random.Random(3)
    async with stores(postgres, schema) as (one, two):
        sessions = []
        for number in range(8):
            unit = done.unit()
            sessions.append((await opened((one, two)[number % 2].begin(unit, "select 1")), unit))
        for number, (_, unit) in enumerate(sessions):
            unit.messages.append(out(f"m{number}", f"k{number}"))
        chance.shuffle(sessions)
        seen: list[str] = []
        for session, _ in sessions:
            await session.commit()
            fresh = await one.unsent(0, 100)
            seen += [m.id for m in fresh]
            one.sent(fresh)
        assert sorted(seen) == [f"m{number}" for number in range(8)]


async def test_t4_transaction_that_began_early_and_writes_the_key_late_is_behind(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two):
        early = done.unit()
        session = await opened(one.begin(early, ROW, ("early",)))  # has its transaction number now
        await done.submit(two, done.unit(messages=[out("v1", "k")]))
        early.messages.append(out("v2", "k"))
        await session.commit()
        assert [(m.id, m.sequence) for m in await two.unsent(0, 9)] == [("v1", 1), ("v2", 2)]


async def test_t4_key_that_is_numbered_waits_for_the_commit_before_it(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two), gate(postgres, 4) as closed:
        first, second = done.unit(statements=[(GATED, (4,))], messages=[out("v1", "k")]), done.unit(messages=[out("v2", "k")])
        one.submit(first)
        await until(closed, STANDS_IN_COMMIT)
        two.submit(second)
        await until(closed, WAITS_FOR_A_ROW)
        assert await ids(two) == []
        await closed.close()
        await done.submit(one, done.unit())
        await done.submit(two, done.unit())
        assert done.order.index(first) < done.order.index(second)
        assert [(m.id, m.sequence) for m in await two.unsent(0, 9)] == [("v1", 1), ("v2", 2)]


async def test_t5_two_relays_never_have_the_same_key(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two):
        await one.hold_lanes("shop", "a", keep=None, lease=60)
        await two.hold_lanes("shop", "b", keep=None, lease=60)
        mine = await one.hold_lanes("shop", "a", keep=range(32), lease=60)
        its = await two.hold_lanes("shop", "b", keep=None, lease=60)
        assert sorted([*mine.lanes, *its.lanes]) == list(range(LANES))
        await done.submit(one, done.unit(messages=[out(f"{key}{n}", key) for n in range(3) for key in "abcdefgh"]))
        first, second = await one.unsent(0, 99, list(mine.lanes)), await two.unsent(0, 99, list(its.lanes))
        assert not {m.key for m in first} & {m.key for m in second}
        assert len(first) + len(second) == 24


async def test_t6_long_transaction_holds_nobody_up(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    async with stores(postgres, schema) as (one, two):
        open_for_long = await opened(one.begin(done.unit(), ROW, ("long",)))
        unit = done.unit(statements=[(ROW, ("short",))], messages=[out("m", "k")])
        assert await done.submit(two, unit) == [Outcome.COMMITTED]
        assert await ids(two) == ["m"]
        await open_for_long.rollback()


class Ring:
    """Counts wake-ups."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._event.set()

    async def heard(self) -> None:
        async with asyncio.timeout(20):
            await self._event.wait()
        self._event.clear()


async def test_t7_wake_up_is_empty_and_coalesced(postgres: PostgresRunner, schema: str) -> None:
    """8000 bytes of content are refused by NOTIFY, and each one takes a lock of the whole server: so none is sent, and few wake-ups."""
    done = Settled()
    async with stores(postgres, schema) as (one, two):
        await one.hold_lanes(OUTBOX, "a", keep=None, lease=60)
        await two.hold_lanes(OUTBOX, "b", keep=None, lease=60)
        rung, other = Ring(), Ring()
        one.on_wake(rung)
        two.on_wake(other)
        await rung.heard()  # once, as soon as it listens
        await other.heard()
        rung.count = 0
        for group in range(20):
            await done.submit(two, *(done.unit(messages=[out(f"{group}-{n}", f"k{n}")]) for n in range(50)))
        await rung.heard()
        assert await one.read("select 1") == [(1,)]
        assert 0 < rung.count <= 20
        assert other.count == 1


KEYS = [f"k{n}" for n in range(12)]


async def recorded(store: PostgresStore, done: Settled, chance: random.Random, who: str) -> None:
    for turn in range(25):
        units = [done.unit(messages=[out(f"r{who}-{turn}-{n}", chance.choice(KEYS)) for n in range(2)]) for _ in range(4)]
        assert set(await done.submit(store, *units)) == {Outcome.COMMITTED}


async def interactive(store: PostgresStore, done: Settled, chance: random.Random, who: str) -> None:
    for turn in range(15):
        unit = done.unit()
        session = await opened(store.begin(unit, ROW, (f"i{who}-{turn}",)))
        await asyncio.sleep(chance.random() / 50)  # transactions of different length
        unit.messages += [out(f"i{who}-{turn}-{n}", chance.choice(KEYS)) for n in range(3)]
        await session.commit()


async def relay(store: PostgresStore, lanes: list[int], log: dict[str, list[int]], written: asyncio.Event) -> None:
    """Send what is there, again and again, until nothing more can come."""
    while True:
        over = written.is_set()
        found = await store.unsent(0, 40, lanes)
        for message in found:
            log[message.key].append(message.sequence)
        store.sent(found)
        if over and not found:
            return
        await asyncio.sleep(0.002)  # the next look


async def test_order_and_completeness_with_writers_long_transactions_and_three_relays(postgres: PostgresRunner, schema: str) -> None:
    """Recorded and interactive writers in two processes, a long transaction beside them, three relays by lanes in a third."""
    done, chance, written = Settled(), random.Random(7), asyncio.Event()
    log: dict[str, list[int]] = defaultdict(list)
    async with stores(postgres, schema, 3) as (one, two, three):
        relays = [asyncio.ensure_future(relay(three, list(range(n, LANES, 3)), log, written)) for n in range(3)]
        work = [recorded(one, done, chance, "1"), recorded(two, done, chance, "2")]
        work += [interactive(store, done, chance, str(n)) for n, store in enumerate((one, two, two))]
        long = await opened(one.begin(done.unit(), ROW, ("long",)))
        async with asyncio.timeout(50):
            await asyncio.gather(*work)
            written.set()
            await asyncio.gather(*relays)
        await long.rollback()
    committed = sorted((message.key, message.sequence) for unit in done.order for message in unit.messages)
    assert committed == sorted((key, sequence) for key, sequences in log.items() for sequence in sequences)
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in log.values())
