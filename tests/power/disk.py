"""A disk whose cache dies with its power: `python -m tests.power.disk MOUNT PLATTER`.

A FUSE file system. What is written stays in the memory of this process; `fsync`, `fdatasync` and writes to files that were opened with
O_SYNC or O_DSYNC put it on the platter, a plain directory. Files are made, renamed and removed on the platter at once. SIGKILL is the
power cut: what had not been synced is gone, whatever the kernel and the other processes think of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import mfusepy

SYNCED = os.O_SYNC | os.O_DSYNC
BLOCK = 4096


class Cached:
    """The present content of one file, and which of it is not on the platter."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = bytearray(Path(path).read_bytes())
        self._dirty: list[tuple[int, int]] = []
        self._shortest = len(self.data)

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if len(self.data) < offset:
            self.resize(offset)
        self.data[offset:end] = data
        self._dirty.append((offset, end))

    def resize(self, length: int) -> None:
        if length < len(self.data):
            del self.data[length:]
            self._shortest = min(self._shortest, length)
        elif length > len(self.data):
            self._dirty.append((len(self.data), length))
            self.data.extend(bytes(length - len(self.data)))

    def sync(self) -> None:
        """Put it on the platter."""
        with open(self.path, "r+b") as file:
            file.truncate(self._shortest)
            for start, end in self._dirty:
                file.seek(start)
                file.write(self.data[start : min(end, len(self.data))])
            file.truncate(len(self.data))
        self._dirty.clear()
        self._shortest = len(self.data)


class Disk(mfusepy.Operations):
    """The operations that SQLite and nats-server need; one thread, so no locks."""

    use_ns = True

    def __init__(self, platter: str) -> None:
        self._root = platter
        self._files: dict[str, Cached] = {}
        self._open: dict[int, tuple[Cached, bool]] = {}
        self._next = 0

    def _at(self, path: str) -> str:
        return self._root + path

    def _cached(self, path: str) -> Cached:
        if path not in self._files:
            self._files[path] = Cached(self._at(path))
        return self._files[path]

    def _opened(self, path: str, flags: int) -> int:
        self._next += 1
        self._open[self._next] = (self._cached(path), bool(flags & SYNCED))
        return self._next

    # --- names, on the platter at once

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._at(path))
        keys = ("st_mode", "st_nlink", "st_uid", "st_gid")
        answer: dict[str, Any] = {key: getattr(found, key) for key in keys}
        answer |= {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        cached = self._open[fh][0] if fh in self._open else self._files.get(path)
        size = len(cached.data) if cached is not None and stat.S_ISREG(found.st_mode) else found.st_size
        return answer | {"st_size": size, "st_blocks": -(-size // 512)}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        self._files.pop(path, None)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        os.rename(self._at(old), self._at(new))
        moved = [name for name in self._files if name == old or name.startswith(f"{old}/")]
        self._files.pop(new, None)
        for name in moved:
            cached = self._files.pop(name)
            there = new + name[len(old) :]
            cached.path = self._at(there)
            self._files[there] = cached
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        os.utime(self._at(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._root)
        keys = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize", "f_namemax")
        return {key: getattr(found, key) for key in keys}

    # --- content, in memory until it is synced

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        os.close(os.open(self._at(path), os.O_CREAT | os.O_RDWR, mode))
        return self._opened(path, 0)

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_TRUNC:
            self._cached(path).resize(0)
        return self._opened(path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._open[fh][0].data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        cached, synced = self._open[fh]
        cached.write(data, offset)
        if synced:
            cached.sync()
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        (self._open[fh][0] if fh in self._open else self._cached(path)).resize(length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        cached = self._open[fh][0]
        if os.path.exists(cached.path):
            cached.sync()
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        self._open.pop(fh, None)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def readlink(self, path: str) -> str:
        raise mfusepy.FuseOSError(errno.EINVAL)


if __name__ == "__main__":
    mount, platter = sys.argv[1:]
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: end with whoever started us
    mfusepy.FUSE(Disk(platter), mount, foreground=True, nothreads=True, fsname="powercut", allow_other=False)
