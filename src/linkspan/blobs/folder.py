"""A folder as a place for large contents: one file each, written beside, synced, and put in its place by a rename."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Final, TypeVar

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

__all__ = ["FolderPlace"]

T = TypeVar("T")

MARK: Final = ".linkspan-blobs"
"""A file that says that the folder is there: where it is missing, a disk is not mounted, and its blobs are away, not lost."""
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:/[a-z0-9_-]+)*")
_WRITING: Final = ".writing"


class FolderPlace:
    """Implements `linkspan.ports.BlobPlace`. All who share it see the same folder, and are the same user of the system."""

    prefix = "folder:"

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self) -> None:
        """Make the folder where it is missing."""

        def make() -> None:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / MARK).touch(mode=0o600)

        try:
            await asyncio.to_thread(make)
        except OSError as error:
            text = f"The folder for blobs cannot be used ({_reason(error)}): correct the path or its permissions."
            raise SetupError(text) from error

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""

    async def put(self, name: str, data: bytes) -> None:
        """Write, sync, rename, sync the folder."""
        await self._run(lambda: _write(self._file(name), data))

    async def get(self, name: str, most: int) -> bytes:
        """Read the file, no link and no device."""
        return await self._run(lambda: _read(self._file(name), most))

    async def names(self) -> AsyncIterator[str]:
        """Yield what lies below the folder."""
        for name in await self._run(self._all):
            yield name

    async def remove(self, name: str) -> None:
        """Delete the file; its folder stays."""
        await self._run(lambda: self._file(name).unlink(missing_ok=True))

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Error(Code.INVALID_ARGUMENT, "The name of a blob leaves its folder: use letters, digits, dashes and slashes.")
        return self.path / name

    def _all(self) -> list[str]:
        found: list[str] = []
        for folder, _, files in os.walk(self.path):
            place = os.path.relpath(folder, self.path).replace(os.sep, "/")
            found += [file if place == "." else f"{place}/{file}" for file in files]
        return [name for name in found if _NAME.fullmatch(name)]

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and (self.path / MARK).exists():
                raise Error(Code.NOT_FOUND, "The blob is not in its folder any more: it was removed, or written elsewhere.") from error
            raise Error(Code.UNAVAILABLE, f"The folder for blobs cannot be used now ({_reason(error)}): look after its disk.") from error


def _write(file: Path, data: bytes) -> None:
    _need(file)
    fresh = not file.parent.exists()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_name(file.name + _WRITING)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.replace(file)
    _sync(file.parent)
    if fresh:
        for parent in list(file.parents)[1:3]:
            _sync(parent)


def _need(file: Path) -> None:
    """Refuse to write where the mark is not: the disk is not mounted. Raises `OSError`."""
    if not any((parent / MARK).exists() for parent in file.parents):
        raise OSError(errno.ENODEV, "not mounted")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path, most: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise Error(Code.DATA_LOSS, "The blob is longer than its message says, or no file: it was altered.")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(most)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
