"""What a commit to a PostgreSQL server is worth, by the settings in force for our own connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.ports import Durability

if TYPE_CHECKING:
    from linkspan.stores.postgres_place import Connection

__all__ = ["durability"]

_SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "synchronous_standby_names",
    "wal_level",
    "wal_sync_method",
    "data_checksums",
    "server_version",
    "max_slot_wal_keep_size",
)
_FACTS = """
select name, setting from pg_settings where name = any ($1::text[])
union all select 'in_recovery', pg_is_in_recovery()::text
union all select 'unlogged', string_agg(relname, ',' order by relname) from pg_class
  where relnamespace = current_schema()::regnamespace and relkind = 'r' and relpersistence <> 'p'
union all select 'standbys', count(*)::text from pg_stat_replication where state = 'streaming'
union all select 'synchronous_standbys', count(*)::text from pg_stat_replication where sync_state in ('sync', 'quorum')
"""


async def durability(connection: Connection) -> Durability:
    """Ask the server."""
    facts = {row[0]: str(row[1] or "") for row in await connection.fetch(_FACTS, list(_SETTINGS))}
    torn, lost = list[str](), list[str]()
    if facts.get("fsync") == "off":
        torn.append("fsync is off: a power cut may damage all databases of the server; set fsync = on")
    if facts.get("full_page_writes") == "off":
        torn.append("full_page_writes is off: a power cut may leave torn pages; set full_page_writes = on")
    if facts.get("synchronous_commit") == "off":
        lost.append(
            "synchronous_commit is off: a crash of the server undoes commits that were answered; set it to on, for role and database too"
        )
    if facts.get("in_recovery") == "true":
        lost.append("the server is a standby: connect to the primary")
    if facts.get("unlogged"):
        lost.append(f"the tables {facts['unlogged']} are unlogged, so empty after a crash: alter them to logged")
    level = "none" if lost else "process" if torn else "power"
    return Durability("postgresql", level, (*lost, *torn), {name: value for name, value in facts.items() if value})
