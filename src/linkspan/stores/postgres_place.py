"""Where a PostgreSQL store is: its URL, its sizes and waits, and how connections to it are opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from typing import TypeAlias

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

__all__ = ["OLDEST", "Place", "PostgresLimits"]

OLDEST = 14
"""The first major version with all that we use."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_$]{0,62}")


@dataclass(frozen=True, slots=True)
class PostgresLimits:
    """Sizes and waits of a PostgreSQL store; times in seconds.

    `sessions` and `readers` bound the connections for interactive transactions and for reads; two more write groups and listen.
    `lock` is how long a group waits for a row that others hold. `idle` is how long the server lets our own part of a transaction,
    from the fence to the commit, stand still: a process that was stopped in it frees its lanes then. `unknown` is how long a commit
    whose answer was lost is asked after.
    """

    group: int = 512
    sessions: int = 8
    readers: int = 4
    connect: float = 10.0
    lock: float = 2.0
    idle: float = 5.0
    unknown: float = 30.0
    sent_rows: int = 256
    sent_delay: float = 0.05
    wake_delay: float = 0.02
    forget: int = 10_000
    closing: float = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A schema of a database. `dsn` may hold a password: it is never shown."""

    dsn: str = field(repr=False)
    schema: str
    limits: PostgresLimits

    @classmethod
    def of(cls, url: str, *, name: str, limits: PostgresLimits | None = None) -> Place:
        """Read `postgresql://user@host:port/database?schema=...`. Without a schema it is the service's name. Raises `SetupError`."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        schema = options.pop("schema", name.replace("-", "_").lower())
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise SetupError(f"The schema '{schema}' of store '{name}' cannot be used: give ?schema= with lower case letters and digits.")
        limits = limits or PostgresLimits()
        for option in ("sessions", "readers"):
            if option in options:
                given = options.pop(option)
                if not given.isdecimal() or not 0 < int(given) <= 1000:  # noqa: PLR2004 - more connections than any server should have
                    raise SetupError(f"The number of {option} of store '{name}' is '{given}': give a whole number from 1 to 1000.")
                limits = replace(limits, **{option: int(given)})
        dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options, quote_via=quote), ""))
        return cls(dsn, schema, limits)

    @property
    def quoted(self) -> str:
        """Return the schema as an SQL identifier."""
        return f'"{self.schema}"'

    async def connect(self, name: str, *, reading: bool = False, ours: bool = False) -> Connection:
        """Open a connection with our settings. `ours`: no user waits between two statements of a transaction there."""
        limits = self.limits
        settings = {
            "application_name": f"linkspan {name}"[:63],
            "search_path": f"{self.quoted}, public",
            "jit": "off",  # our statements are short
            "client_min_messages": "warning",
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        }
        if reading:
            settings["default_transaction_read_only"] = "on"
        if ours:
            settings["lock_timeout"] = f"{round(limits.lock * 1000)}"
            settings["idle_in_transaction_session_timeout"] = f"{round(limits.idle * 1000)}"
        try:
            return await asyncpg.connect(self.dsn, timeout=limits.connect, server_settings=settings, statement_cache_size=512)
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise SetupError(
                f"The URL of store '{name}' cannot be used ({type(error).__name__}): write postgresql://user@host:port/database."
            ) from error
