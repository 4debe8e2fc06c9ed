"""A message whose predecessor is missing waits, and its key with it, until that one comes or a person accepts the gap."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from linkspan import App, Context, Limits, Service
from linkspan.ports import Letter, LetterState
from tests.unit.app_shop import Placed, placed_message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(200)


class Reader:
    """A service on PostgreSQL that handles what a test publishes by hand, with the numbers that it chooses."""

    def __init__(self, app: App, handled: list[tuple[str, str]]) -> None:
        self._app = app
        self.handled = handled
        store = app.running["mail"].store
        assert store is not None
        self.store = store

    async def publish(self, key: str, number: int) -> None:
        assert self._app.broker is not None
        await self._app.broker.publish(placed_message(f"{key}-{number}", key, str(number), number))

    async def until(self, *wanted: str, key: str = "k") -> None:
        """Wait until the effects of a key are these, in this order, and no others."""
        async with asyncio.timeout(60):
            while await self._effects(key) != list(wanted):  # noqa: ASYNC110 - the database says nothing
                await asyncio.sleep(0.05)

    async def _effects(self, key: str) -> list[str]:
        return [row[0] for row in await self.store.read("select note from effect where key = ? order by place", (key,))]

    async def letters(self, state: LetterState, count: int) -> list[Letter]:
        async with asyncio.timeout(60):
            while len(found := await self.store.letters(states=[state])) != count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def reader(folder: Path, postgres: PostgresRunner, *parked: float) -> AsyncGenerator[Reader]:
    handled: list[tuple[str, str]] = []
    tables = "create table effect (place bigint generated always as identity, key text, note text)"
    url = postgres.url(schema=f"gaps_{secrets.token_hex(4)}")
    mail = Service("mail", store=url, migrations=[tables], limits=Limits(parked=parked))

    @mail.on(Placed)
    async def take(ctx: Context, event: Placed) -> None:
        ctx.tx.record("insert into effect (key, note) values (?, ?)", event.order, event.note)
        handled.append((event.order, event.note))

    async with App(mail, broker="memory://", http="127.0.0.1:0", data=folder) as app:
        yield Reader(app, handled)


async def test_message_behind_a_gap_waits_for_the_missing_one_and_other_keys_flow(tmp_path: Path, postgres: PostgresRunner) -> None:
    async with reader(tmp_path, postgres, 60.0) as mail:
        for number in (1, 3, 4):
            await mail.publish("k", number)
        (letter,) = await mail.letters(LetterState.PARKED, 1)
        await mail.letters(LetterState.WAITING, 1)
        await mail.publish("other", 1)
        await mail.until("1", key="other")
        await mail.until("1")
        assert (letter.code, letter.fingerprint) == ("data_loss", "gap")
        assert "Number 2 of its source and key has not come" in letter.error

        await mail.publish("k", 2)

        await mail.until("1", "2", "3", "4")
        await mail.publish("k", 5)
        await mail.until("1", "2", "3", "4", "5")


async def test_gap_that_a_person_accepts_is_passed_and_what_comes_late_is_a_repeat(tmp_path: Path, postgres: PostgresRunner) -> None:
    async with reader(tmp_path, postgres) as mail:
        for number in (1, 3, 4):
            await mail.publish("k", number)
        (letter,) = await mail.letters(LetterState.DEAD, 1)

        assert await mail.store.redrive([letter.position], who="ada", why="2 is lost", at=0.0) == 1

        await mail.until("1", "3", "4")
        await mail.publish("k", 2)
        await mail.publish("k", 5)
        await mail.until("1", "3", "4", "5")
