"""Fills outbox, inbox and dead letters by SQL, so that a million rows take seconds."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

import asyncpg

from benchmarks import payload
from benchmarks.ours.orders_v1 import OrderPlaced
from linkspan.envelope import Envelope, prefix, render

if TYPE_CHECKING:
    from pathlib import Path

TYPE = "bench.orders.v1.OrderPlaced"
TOPIC = "bench.orders.v1.events"
EACH = 10
"""Letters of a key: a dead one, and those that wait behind it."""
ENVELOPE = Envelope("THE-ID", "orders", TYPE, key="THE-KEY", time="2026-01-01T00:00:00.000Z")
HEADERS = render(prefix(TYPE, "orders"), ENVELOPE).decode()
DATA = OrderPlaced(**payload.event_values(7)).to_binary()
DAY = 86_400.0

_NUMBERS = "with recursive numbers (n) as (select 1 where ?1 > 0 union all select n + 1 from numbers where n < ?1)"
_LETTER = """
format, topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
received, first_failed, last_failed, redrives
"""
_STATE = f"case when n % {EACH} = 0 then 'dead' else 'waiting' end"
SQLITE_INBOX = f"""{_NUMBERS}
insert into linkspan_inbox (source, id, at) select 'mail<orders', printf('01900000-0000-7000-8000-%012x', n), ?2 + n * 0.001 from numbers
"""
SQLITE_LETTERS = f"""{_NUMBERS}
insert into linkspan_letter ({_LETTER})
select 1, 'mail:{TOPIC}', 'dead-' || (n / {EACH}), 'orders', printf('01900000-0000-7000-8001-%012x', n), '{TYPE}',
  cast(?3 as blob), ?4, {_STATE}, 3, 0, 'internal', 'No.', 'f' || (n % 7), ?2, ?2, ?2, 0 from numbers
"""
SQLITE_OUTBOX = f"""{_NUMBERS}
insert into linkspan_outbox (format, at, topic, name, lane, id, key, sequence, headers, data)
select 1, ?2, '{TOPIC}', 'OrderPlaced', n % 64, id, 'k' || n, 1, cast(replace(?3, 'THE-ID', id) as blob), ?4
from (select n, printf('%08x-0000-7000-8002-%012x', ?5, n) as id from numbers)
"""
POSTGRES_INBOX = """
insert into linkspan_inbox (source, id, at)
select 'mail<orders', '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), $2::float8 + n * 0.001 from generate_series(1, $1::int) as n
"""
POSTGRES_LETTERS = f"""
insert into linkspan_letter (lane, {_LETTER})
select (n / {EACH}) % 64, 1, 'mail:{TOPIC}', 'dead-' || (n / {EACH}), 'orders', '01900000-0000-7000-8001-' || lpad(to_hex(n), 12, '0'),
  '{TYPE}', convert_to($3::text, 'UTF8'), $4::bytea, {_STATE}, 3, 0, 'internal', 'No.', 'f' || (n % 7), $2::float8,
  $2::float8, $2::float8, 0
from generate_series(1, $1::int) as n
"""
POSTGRES_OUTBOX = f"""
insert into linkspan_outbox (format, at, topic, name, lane, id, key, sequence, headers, data)
select 1, $2::float8, '{TOPIC}', 'OrderPlaced', n % 64, id, 'k' || n, 1, convert_to(replace($3::text, 'THE-ID', id), 'UTF8'), $4::bytea
from (
  select n, lpad(to_hex($5::bigint), 8, '0') || '-0000-7000-8002-' || lpad(to_hex(n), 12, '0') as id from generate_series(1, $1::int) as n
) as numbered order by n
"""
ALONE = "delete from linkspan_member; update linkspan_lane set owner = null; vacuum analyze; checkpoint"
"""Nobody waits for the lease of a process that was killed, nor pays for what the fill left to do."""


class SqliteFill:
    """Fills a file that nobody has open."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def held(self, rows: int) -> None:
        """Fill inbox and dead letters."""
        with contextlib.closing(sqlite3.connect(self._place / "mail.db")) as file, file:
            file.execute(SQLITE_INBOX, (rows, time.time() - DAY))
            file.execute(SQLITE_LETTERS, (rows, time.time() - DAY, HEADERS, DATA))

    def outbox(self, rows: int, number: int) -> None:
        """Fill the outbox up to so many rows."""
        with contextlib.closing(sqlite3.connect(self._place / "orders.db")) as file, file:
            ((there,),) = file.execute("select coalesce(max(position) - min(position) + 1, 0) from linkspan_outbox").fetchall()
            file.execute(SQLITE_OUTBOX, (rows - there, time.time(), HEADERS, DATA, number))


class PostgresFill:
    """Fills the schemas `mail` and `orders` of a database."""

    def __init__(self, url: str) -> None:
        self._url = url

    def held(self, rows: int) -> None:
        """Fill inbox and dead letters."""
        mail = (POSTGRES_INBOX, (rows, time.time() - DAY)), (POSTGRES_LETTERS, (rows, time.time() - DAY, HEADERS, DATA))
        asyncio.run(self._run("mail", *mail))

    def outbox(self, rows: int, number: int) -> None:
        """Fill the outbox up to so many rows."""
        asyncio.run(self._outbox(rows, number))

    async def _outbox(self, rows: int, number: int) -> None:
        connection = await asyncpg.connect(self._url, server_settings={"search_path": "orders"})
        there = await connection.fetchval("select count(*) from linkspan_outbox")
        await connection.close()
        await self._run("orders", (POSTGRES_OUTBOX, (max(rows - there, 0), time.time(), HEADERS, DATA, number)))

    async def _run(self, schema: str, *statements: tuple[str, tuple[object, ...]]) -> None:
        connection = await asyncpg.connect(self._url, server_settings={"search_path": schema})
        try:
            for sql, args in statements:
                await connection.execute(sql, *args)
            for sql in ALONE.split("; "):
                await connection.execute(sql)
        finally:
            await connection.close()


async def create_database(url: str, name: str) -> None:
    """Create a database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
