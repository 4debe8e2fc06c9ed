"""The settings of PostgreSQL that make a commit worth less, as a table over what the server says of itself.

The facts are those of `pg_settings` for our own connections (so role, database and session count), and beside them `in_recovery`,
`unlogged` (our tables that are), `standbys` and `synchronous_standbys` (how many stream).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.ports import Unsafe, attested, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from linkspan.ports import Durability

    Test = Callable[[Mapping[str, Any]], bool]

__all__ = ["NAMES", "SETTINGS", "judge"]

OLDEST = 14
"""The oldest major version that still gets fixes."""


def _is(setting: str, *values: str) -> Test:
    return lambda facts: facts.get(setting) in values


def _count(facts: Mapping[str, Any], name: str) -> int:
    text = str(facts.get(name, "")).partition(".")[0]
    return int(text) if text.isdigit() else 0


SETTINGS = (
    Unsafe(
        "postgresql.fsync",
        "process",
        "fsync",
        "a power cut may damage every database of the server",
        "set `fsync = on`",
        _is("fsync", "off"),
    ),
    Unsafe(
        "postgresql.synchronous_commit_off",
        "none",
        "synchronous_commit",
        "a crash of the server undoes commits that were answered",
        "set `synchronous_commit = on`, for the role and the database too (`alter role ... reset synchronous_commit`)",
        _is("synchronous_commit", "off"),
    ),
    Unsafe(
        "postgresql.synchronous_commit_local",
        "process",
        "synchronous_commit",
        "commits do not wait for the synchronous standby, so a failover to it forgets the last ones",
        "set `synchronous_commit = on`",
        lambda facts: facts.get("synchronous_commit") == "local" and bool(facts.get("synchronous_standby_names")),
    ),
    Unsafe(
        "postgresql.synchronous_commit_remote_write",
        "process",
        "synchronous_commit",
        "a standby has the commit in memory only, so a power cut of both and a failover forget the last ones",
        "set `synchronous_commit = on`",
        lambda facts: facts.get("synchronous_commit") == "remote_write" and bool(facts.get("synchronous_standby_names")),
    ),
    Unsafe(
        "postgresql.asynchronous_failover",
        "process",
        "standbys",
        "none of them is synchronous: a failover forgets the last commits, while their events are out",
        "name a standby in `synchronous_standby_names`",
        lambda facts: _count(facts, "standbys") > 0 and _count(facts, "synchronous_standbys") == 0,
    ),
    Unsafe(
        "postgresql.full_page_writes",
        "process",
        "full_page_writes",
        "a power cut may leave pages half written",
        "set `full_page_writes = on`",
        _is("full_page_writes", "off"),
    ),
    Unsafe(
        "postgresql.data_sync_retry",
        "process",
        "data_sync_retry",
        "a failed write is taken for done when its second sync succeeds",
        "set `data_sync_retry = off`",
        _is("data_sync_retry", "on"),
    ),
    Unsafe(
        "postgresql.unlogged_tables",
        "none",
        "unlogged",
        "they are empty after a crash of the server",
        "`alter table ... set logged`",
        lambda facts: bool(facts.get("unlogged")),
    ),
    Unsafe(
        "postgresql.standby",
        "none",
        "in_recovery",
        "it is a standby, which takes no writes and may be behind",
        "connect to the primary (`target_session_attrs=read-write`)",
        _is("in_recovery", "true", "t", "on"),
    ),
    Unsafe(
        "postgresql.zero_damaged_pages",
        "none",
        "zero_damaged_pages",
        "damaged pages are emptied in silence",
        "set `zero_damaged_pages = off`",
        _is("zero_damaged_pages", "on"),
    ),
    Unsafe(
        "postgresql.ignore_checksum_failure",
        "process",
        "ignore_checksum_failure",
        "damaged pages are read as if they were whole",
        "set `ignore_checksum_failure = off`",
        _is("ignore_checksum_failure", "on"),
    ),
    Unsafe(
        "postgresql.data_checksums",
        "power",
        "data_checksums",
        "a page that the disk has damaged is not noticed",
        "run `pg_checksums --enable` while the server is down",
        _is("data_checksums", "off"),
    ),
    Unsafe(
        "postgresql.wal_level",
        "power",
        "wal_level",
        "there can be no standby and no restore to a moment",
        "set `wal_level = replica`",
        _is("wal_level", "minimal"),
    ),
    Unsafe(
        "postgresql.old_server",
        "process",
        "server_version",
        "it gets no fixes any more",
        "upgrade to a version that is supported",
        lambda facts: 0 < _count(facts, "server_version") < OLDEST,
    ),
)
"""Unsafe settings of PostgreSQL, each with what is left of the promise."""

NAMES = (
    "data_checksums",
    "data_sync_retry",
    "fsync",
    "full_page_writes",
    "ignore_checksum_failure",
    "max_slot_wal_keep_size",
    "server_version",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_level",
    "wal_sync_method",
    "zero_damaged_pages",
)
"""What to ask `pg_settings` for."""


def judge(facts: Mapping[str, str], where: str = "The server") -> Durability:
    """Say what the facts amount to."""
    return attested("postgresql", judged(SETTINGS, facts, where), {name: value for name, value in facts.items() if value})
