"""Connections that are used in turn: the next one finds nothing of the one before."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from linkspan.stores.postgres_place import Place
from linkspan.stores.postgres_pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.integration.postgres_runner import PostgresRunner


@asynccontextmanager
async def pool_of_one(postgres: PostgresRunner) -> AsyncGenerator[Pool]:
    pool = Pool(Place.of(postgres.url(), name="shop"), "shop", 1)
    try:
        yield pool
    finally:
        await pool.aclose()


async def test_a_connection_with_an_open_transaction_is_given_to_nobody(postgres: PostgresRunner) -> None:
    async with pool_of_one(postgres) as pool:
        first = await pool.take()
        await first.execute("begin")
        pool.give(first)

        second = await pool.take()
        assert not second.is_in_transaction()
        pool.give(second)
        assert await pool.take() is second


async def test_a_connection_that_was_lost_leaves_its_room_to_another(postgres: PostgresRunner) -> None:
    async with pool_of_one(postgres) as pool:
        first = await pool.take()
        first.terminate()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.take(), 0.05)
        pool.give(first)

        second = await asyncio.wait_for(pool.take(), 10.0)
        assert await second.fetchval("select 1") == 1
