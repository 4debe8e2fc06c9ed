"""Races between what a look at the database saw and what has been committed since, made certain by slowing the look down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from linkspan import App, Code, Context, Error, Service
from linkspan.letters import deadletter
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.crash import Recorder
from tests.crash.crash_app import LIMITS, TABLE, OrderPlaced

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pytest

EFFECT = "insert into effect (what, id, key, number) values ('seen', ?, ?, ?)"


async def test_key_is_held_whose_letter_was_committed_during_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that saw no letter must not set the key free after the letter was committed: later messages would overtake it."""
    right = SqliteStore.held_keys

    async def held_keys(self: SqliteStore, lanes: Collection[int] | None = None) -> set[tuple[str, str]]:
        found = await right(self, lanes)
        await asyncio.sleep(0.02)
        return found

    monkeypatch.setattr(SqliteStore, "held_keys", held_keys)
    monkeypatch.setattr(deadletter, "TICK", 0.0)
    orders, ledger = Service("orders", owns=[OrderPlaced]), Service("ledger", migrations=[TABLE], limits=LIMITS, breaker=None)

    @ledger.on(OrderPlaced)
    async def react(ctx: Context, event: OrderPlaced) -> None:
        if event.number == 1 and ctx.attempt <= LIMITS.inline:
            raise Error(Code.UNAVAILABLE, "Not yet.")
        ctx.tx.record(EFFECT, event.id, event.key, event.number)

    reached = Recorder()
    async with App(orders, ledger, broker="memory://", http="127.0.0.1:0", data=tmp_path, runtime=system(reached)) as app:
        keys = [f"key{number}" for number in range(10)]
        for key in ("before", *keys):  # a held key keeps the looks going
            for number in range(1, 5):
                async with app.transaction(orders) as ctx:
                    await ctx.publish(OrderPlaced(key=key, id=f"{key}-{number}", number=number, plan=""))
            await asyncio.sleep(0.01)
        seen = await _effects(app, 4 * (len(keys) + 1))

    assert reached.counts["letter.run.after"] >= len(keys)
    assert [numbers for numbers in seen.values() if numbers != [1, 2, 3, 4]] == []


async def _effects(app: App, count: int) -> dict[str, list[int]]:
    """Wait for so many effects and return each key's numbers in the order of their commits."""
    store: Any = app.running["ledger"].store
    async with asyncio.timeout(20):
        while len(rows := await store.read("select key, number from effect order by position")) < count:  # noqa: ASYNC110 - what another thread commits rings no bell here
            await asyncio.sleep(0.02)
    found: dict[str, list[int]] = {}
    for key, number in rows:
        found.setdefault(key, []).append(number)
    return found
