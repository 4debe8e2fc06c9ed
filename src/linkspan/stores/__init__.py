"""Where a service keeps its state: `open_store` chooses the adapter by the URL's scheme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from linkspan.ports import Runtime, Store

__all__ = ["open_store"]

_SCHEMES = "sqlite:///relative.db, sqlite:////absolute/path.db"


def open_store(url: str, *, name: str, runtime: Runtime, exclusive: bool = True) -> Store:
    """Return the store that a URL names, not opened yet; `exclusive=False` beside a running service.

    Three slashes begin a relative path, four an absolute one. Raises `SetupError` for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme in {"postgresql", "postgres"}:
        raise SetupError(f"The store '{parts.scheme}://' is not there yet: use one of {_SCHEMES}.")
    if parts.scheme != "sqlite":
        raise SetupError(f"The store '{parts.scheme}://' is not known: use one of {_SCHEMES}.")
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or parts.fragment or not path or path == ":memory:":
        raise SetupError(f"The SQLite URL of store '{name}' must name a file and nothing else: use one of {_SCHEMES}.")
    from linkspan.stores.sqlite import SqliteStore  # noqa: PLC0415 - only where it is used

    return SqliteStore(Path(path), name=name, runtime=runtime, exclusive=exclusive)
