"""Where several processes share a store, what others do to held letters is noticed soon, at a cost that does not grow with what is held."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from linkspan import App, Code, Context, Error, Limits, Service
from linkspan.letters.desk import Desk, audited
from linkspan.letters.lookout import Lookout
from linkspan.ports import LetterState
from linkspan.runtime import system
from linkspan.stores import postgres_letters
from linkspan.stores.postgres import PostgresStore
from linkspan.stores.postgres_sql import translated
from linkspan.testing.store_letters import hold
from linkspan.testing.store_probe import letter
from tests.unit.app_shop import Placed, placed_message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
    from pathlib import Path

    from linkspan.ports import Letter
    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(200)
TOPIC = "shop:shop.events"
MANY = """
insert into linkspan_letter (format, lane, topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives)
select 1, n % 64, $1, 'k' || n / 10, 's', 'many' || n, 't', '', '', case n % 10 when 0 then 'dead' else 'waiting' end, 1, 0,
  'internal', 'No.', 'f', 0, 0, 0, 0
from generate_series(1, $2::int) as n
"""


@asynccontextmanager
async def opened(postgres: PostgresRunner, schema: str, *, exclusive: bool = True) -> AsyncGenerator[PostgresStore]:
    store = PostgresStore(postgres.url(schema=schema), name="shop", runtime=system(), exclusive=exclusive)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def schema() -> str:
    return f"lookout_{secrets.token_hex(4)}"


async def pages_read(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Return how many pages a look for what is due touches."""
    sql, args = postgres_letters.due("shop", 9.0, 100, range(64))
    ((plan,),) = await connection.fetch(f"explain (analyze, buffers, format json) {sql}", *args)
    return int(json.loads(plan)[0]["Plan"]["Shared Hit Blocks"]) + int(json.loads(plan)[0]["Plan"]["Shared Read Blocks"])


async def test_a_look_costs_what_it_finds_and_not_what_is_held(postgres: PostgresRunner, schema: str) -> None:
    async with opened(postgres, schema) as store:
        connection = await asyncpg.connect(postgres.url(), server_settings={"search_path": schema})
        try:
            await connection.execute(MANY, TOPIC, 100)
            few = await pages_read(connection)
            await connection.execute("delete from linkspan_letter")
            await connection.execute(MANY, TOPIC, 50_000)
            for order in ("select 1", "vacuum analyze linkspan_letter"):  # also before the server has looked at its tables
                await connection.execute(order)
                assert await pages_read(connection) <= 2 * few + 64
            await hold(store, letter("due", "x", LetterState.PARKED, 5.0))
            assert await pages_read(connection) <= 2 * few + 64
        finally:
            await connection.close()


async def test_deed_that_commits_behind_a_later_one_is_noticed_once(postgres: PostgresRunner, schema: str) -> None:
    """Audit rows have their positions before they commit; the one with the lower position may come last."""
    async with opened(postgres, schema) as store:
        held = await hold(store, *(replace(letter(name, name), topic=TOPIC) for name in ("slow", "quick", "last")))
        lookout = Lookout("shop", store, system().clock)
        await lookout.start()
        connection = await asyncpg.connect(postgres.url(), server_settings={"search_path": schema})
        try:
            async with connection.transaction():
                sql, args = audited(1.0, "discard", "ada", "test", held[0].position)
                await connection.execute(translated(sql), *args)
                await Desk(store).discard([held[1]], who="ada", why="test", at=1.0)
                assert await lookout.discarded() == [("shop.events", "quick")]
        finally:
            await connection.close()
        await Desk(store).discard([held[2]], who="ada", why="test", at=1.0)
        assert sorted(key for _, key in await lookout.discarded()) == ["last", "slow"]
        assert await lookout.discarded() == []


def reader(url: str, mended: asyncio.Event, handled: list[tuple[str, str]]) -> Service:
    """Return a service that cannot handle bad orders until it is mended."""
    mail = Service("mail", store=url, limits=Limits(parked=()))

    @mail.on(Placed)
    async def take(ctx: Context, event: Placed) -> None:
        if event.note == "bad" and not mended.is_set():
            raise Error(Code.INVALID_ARGUMENT, "The order is bad.")
        handled.append((event.order, event.note))

    return mail


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await what():  # noqa: ASYNC110 - the database says nothing
            await asyncio.sleep(0.05)


async def test_what_is_done_beside_the_service_is_noticed_without_looking_at_everything(
    postgres: PostgresRunner, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    heads = PostgresStore.heads

    async def counted(self: PostgresStore, now: float, limit: int, lanes: Collection[int] | None = None) -> list[Letter]:
        looks.append(len(lanes or ()))
        return await heads(self, now, limit, lanes)

    due_letters = PostgresStore.due_letters
    small: list[int] = []

    async def noted(
        self: PostgresStore, service: str, now: float, limit: int, lanes: Collection[int] | None = None
    ) -> list[tuple[str, str, int]]:
        small.append(len(lanes or ()))
        return await due_letters(self, service, now, limit, lanes)

    monkeypatch.setattr(PostgresStore, "heads", counted)
    monkeypatch.setattr(PostgresStore, "due_letters", noted)
    handled: list[tuple[str, str]] = []
    mended = asyncio.Event()
    mail = reader(postgres.url(schema=schema), mended, handled)
    async with App(mail, broker="memory://", http="127.0.0.1:0", data=tmp_path) as app, opened(postgres, schema, exclusive=False) as beside:
        assert app.broker is not None
        for key in ("a", "b"):
            for number, note in enumerate(("bad", "good"), 1):
                await app.broker.publish(placed_message(f"{key}-{note}", key, note, number))

        async def both_held() -> bool:
            return len(await beside.letters()) == 4 and small.count(64) > 0

        await until(both_held)
        a, b = await beside.letters(states=[LetterState.DEAD])
        at_rest = len(looks)
        mended.set()
        assert await beside.redrive([a.position], who="ada", why="mended", at=1.0) == 1
        assert await Desk(beside).discard([b], who="ada", why="not wanted", at=1.0) == 1

        async def none_held() -> bool:
            return not await beside.letters()

        await until(none_held)
        assert (len(looks) - at_rest, [note for key, note in handled if key == "a"], len(handled)) == (0, ["bad", "good"], 3)
