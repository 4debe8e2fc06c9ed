"""Where a service keeps its state: `open_store` chooses the adapter by the URL's scheme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from linkspan.ports import Runtime, Store

__all__ = ["open_store", "own_url", "without_password"]

_SCHEMES = "sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host:port/database"


_POSTGRES = {"postgresql", "postgres"}


def own_url(url: str, service: str) -> str:
    """Return the URL of a service's own place: in a PostgreSQL database that is a schema, by default of the service's name."""
    parts = urlsplit(url)
    if parts.scheme not in _POSTGRES or any(name == "schema" for name, _ in parse_qsl(parts.query)):
        return url
    query = f"{parts.query}{'&' if parts.query else ''}schema={service.replace('-', '_').lower()}"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def without_password(url: str) -> str:
    """Return a URL that may be shown."""
    parts = urlsplit(url)
    if parts.scheme not in _POSTGRES:
        return url
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"password", "sslpassword"}]
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user.partition(':')[0]}{at}{host}", parts.path, urlencode(options, quote_via=quote), ""))


def open_store(url: str, *, name: str, runtime: Runtime, exclusive: bool = True) -> Store:
    """Return the store that a URL names, not opened yet; `exclusive=False` beside a running service.

    SQLite: three slashes begin a relative path, four an absolute one. PostgreSQL: `?schema=` is the service's name by default;
    `?sessions=` and `?readers=` bound the connections. Raises `SetupError` for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme in _POSTGRES:
        try:
            from linkspan.stores.postgres import PostgresStore  # noqa: PLC0415 - only where it is used
        except ModuleNotFoundError as error:
            raise SetupError(f"The store '{name}' needs a driver for PostgreSQL: pip install 'linkspan[postgres]'.") from error
        return PostgresStore(url, name=name, runtime=runtime, exclusive=exclusive)
    if parts.scheme != "sqlite":
        raise SetupError(f"The store '{parts.scheme}://' is not known: use one of {_SCHEMES}.")
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or parts.fragment or not path or path == ":memory:":
        raise SetupError(f"The SQLite URL of store '{name}' must name a file and nothing else: use one of {_SCHEMES}.")
    from linkspan.stores.sqlite import SqliteStore  # noqa: PLC0415 - only where it is used

    return SqliteStore(Path(path), name=name, runtime=runtime, exclusive=exclusive)
