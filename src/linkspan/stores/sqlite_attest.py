"""What a commit to a SQLite file is worth: by the settings in force and the file system underneath."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkspan.ports import Unsafe, attested, judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from linkspan.ports import Durability

__all__ = ["SETTINGS", "durability", "mount_of"]

_VOLATILE = {"tmpfs", "ramfs", "devtmpfs"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs", "virtiofs"}
_FULL = 2
"""https://sqlite.org/pragma.html#pragma_synchronous"""


def _options(facts: Mapping[str, Any]) -> set[str]:
    return set(str(facts.get("mount_options", "")).split(","))


SETTINGS = (
    Unsafe(
        "sqlite.synchronous",
        "process",
        "synchronous",
        "below 2 (FULL) a power cut may undo commits that were answered",
        "leave `pragma synchronous` to the store, which sets FULL",
        lambda facts: int(facts.get("synchronous", _FULL)) < _FULL,
    ),
    Unsafe(
        "sqlite.journal_off",
        "none",
        "journal_mode",
        "a killed process leaves half of a transaction, or a damaged file",
        "leave `pragma journal_mode` to the store, which sets WAL",
        lambda facts: facts.get("journal_mode") in {"off", "memory"},
    ),
    Unsafe(
        "sqlite.rollback_journal",
        "power",
        "journal_mode",
        "readers and the writer wait for each other, and a commit syncs four times",
        "leave `pragma journal_mode` to the store, which sets WAL",
        lambda facts: facts.get("journal_mode") in {"delete", "truncate", "persist"},
    ),
    Unsafe(
        "sqlite.memory_file_system",
        "process",
        "file_system",
        "it is kept in memory: a restart of the machine loses it",
        "put the data folder (LINKSPAN_DATA) on a disk",
        lambda facts: facts.get("file_system") in _VOLATILE,
    ),
    Unsafe(
        "sqlite.network_file_system",
        "process",
        "file_system",
        "it may not keep locks and syncs",
        "put the data folder (LINKSPAN_DATA) on a local disk, or use PostgreSQL",
        lambda facts: facts.get("file_system") in _REMOTE,
    ),
    Unsafe(
        "sqlite.fuse_file_system",
        "process",
        "file_system",
        "a program decides what a sync means there",
        "put the data folder (LINKSPAN_DATA) on a local disk",
        lambda facts: str(facts.get("file_system", "")).startswith("fuse"),
    ),
    Unsafe(
        "sqlite.no_barriers",
        "process",
        "mount_options",
        "the file system is mounted without barriers: a power cut may undo commits",
        "mount it without `nobarrier` and `barrier=0`",
        lambda facts: bool({"nobarrier", "barrier=0"} & _options(facts)),
    ),
    Unsafe(
        "sqlite.full_sync_of_macos",
        "process",
        "fullfsync",
        "macOS leaves synced data in the disk's own cache",
        "run on Linux where a power cut counts, or set `pragma fullfsync` on every connection",
        lambda facts: facts.get("platform") == "darwin" and str(facts.get("fullfsync")) == "0",
    ),
    Unsafe(
        "sqlite.writable_schema",
        "process",
        "writable_schema",
        "one statement may damage the file",
        "leave `pragma writable_schema` off",
        lambda facts: str(facts.get("writable_schema", "0")) == "1",
    ),
)
"""Unsafe settings of SQLite, each with what is left of the promise."""


def mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """Return the type and options of the file system under a path, from the text of `/proc/mounts`; empty where unknown."""
    best = ("", "", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ")
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best[0]):
            best = (point, fields[2], fields[3])
    return best[1], best[2]


def durability(connection: sqlite3.Connection, path: Path) -> Durability:
    """Ask the connection that writes, and the machine."""
    names = ("journal_mode", "synchronous", "fullfsync", "writable_schema")
    facts: dict[str, str] = {name: str(connection.execute(f"pragma {name}").fetchone()[0]) for name in names}
    proc = Path("/proc/mounts")
    kind, options = mount_of(path.absolute(), proc.read_text("utf-8")) if proc.exists() else ("", "")
    facts |= {"file_system": kind or "unknown", "mount_options": options, "platform": sys.platform}
    shown = {name: facts[name] for name in ("journal_mode", "synchronous", "file_system")} | {"sqlite": sqlite3.sqlite_version}
    return attested("sqlite", judged(SETTINGS, facts, f"'{path.name}'"), shown)
