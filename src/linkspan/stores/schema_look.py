"""Looking at a store's tables from outside, whichever database it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from linkspan.errors import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.stores.schema import SchemaState

    Scripts = Sequence[tuple[str, str]]

__all__ = ["look", "upgrade_sql"]


async def look(url: str, name: str, scripts: Scripts) -> SchemaState:
    """Compare the database of a store with what it should be; change nothing. Raises `Error`, `SetupError`."""
    if urlsplit(url).scheme == "sqlite":
        from linkspan.stores import sqlite_check  # noqa: PLC0415 - only where it is used

        return sqlite_check.state(Path(unquote(urlsplit(url).path.removeprefix("/"))), scripts)
    from linkspan.stores import postgres_check  # noqa: PLC0415 - only where it is used

    try:
        return await postgres_check.state(url, name, scripts)
    except Error:
        raise
    except Exception as error:
        raise postgres_check.failure(name, error) from error


def upgrade_sql(url: str, name: str, found: int) -> str:
    """Return the SQL that leads our tables from a format to the newest, '' where there is nothing to do."""
    if urlsplit(url).scheme == "sqlite":
        from linkspan.stores import sqlite_check  # noqa: PLC0415 - only where it is used

        return sqlite_check.upgrade_sql(found)
    from linkspan.stores import postgres_check  # noqa: PLC0415 - only where it is used

    return postgres_check.upgrade_sql(url, name, found)
