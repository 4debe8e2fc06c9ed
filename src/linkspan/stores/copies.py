"""A store to try things on: a copy that is thrown away, so that nothing of it touches the one that a service works with."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

from linkspan.errors import SetupError
from linkspan.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from linkspan.ports import Runtime, Store

__all__ = ["opened_copy"]


@asynccontextmanager
async def opened_copy(store: Store, *, url: str, runtime: Runtime) -> AsyncGenerator[Store]:
    """Open a copy of an SQLite store, as it is at this moment; of any other engine the store itself, whose transactions one undoes."""
    path: Path | None = getattr(store, "path", None)
    if path is None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="linkspan-rehearsal-") as folder:
        copy = Path(folder) / path.name
        await asyncio.to_thread(_copy, path, copy)
        opened = open_store(f"{url.partition(':')[0]}:///{copy}", name=store.name, runtime=runtime)
        await opened.open()
        try:
            yield opened
        finally:
            await opened.aclose()


def _copy(path: Path, copy: Path) -> None:
    size = path.stat().st_size
    if shutil.disk_usage(copy.parent).free < 2 * size:
        raise SetupError(
            f"A copy of '{path.name}' has no room in '{copy.parent.parent}': point TMPDIR to a disk with {2 * size >> 20} MiB."
        )
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
