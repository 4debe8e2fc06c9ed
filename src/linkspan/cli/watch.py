"""Tell which files of a folder were saved."""

from __future__ import annotations

import os
from pathlib import Path
from traceback import format_exception_only
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Watch", "syntax_error"]

SUFFIXES = (".py", ".sql", ".toml", ".proto")
"""What an app is made of."""
_NOT_OURS = {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv"}
_TESTS = ("test_", "conftest.py")


class Watch:
    """Compares a folder with how it was when last looked at; tests are left out, since no process runs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> list[Path]:
        """Return what was saved, added or removed since the last look, relative to the folder."""
        before, self._seen = self._seen, self._look()
        names = [name for name in {**before, **self._seen} if before.get(name) != self._seen.get(name)]
        return [Path(name).relative_to(self._folder) for name in sorted(names)]

    def _look(self) -> dict[str, tuple[int, int]]:
        return dict(_files(str(self._folder)))


def _files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _NOT_OURS:
                    yield from _files(entry.path)
            elif entry.name.endswith(SUFFIXES) and not entry.name.startswith(_TESTS):
                status = entry.stat()
                yield entry.path, (status.st_mtime_ns, status.st_size)
        except OSError:  # it went away while we looked
            continue


def syntax_error(file: Path) -> str:
    """Return why a module cannot be parsed, with its line; empty where it can, or where it is gone."""
    if file.suffix != ".py":
        return ""
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return "".join(format_exception_only(error)).rstrip()
    except OSError:
        return ""
    return ""
