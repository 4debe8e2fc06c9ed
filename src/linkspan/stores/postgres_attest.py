"""What a commit to a PostgreSQL server is worth, by the settings in force for our own connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.postgres_settings import NAMES, judge

if TYPE_CHECKING:
    from linkspan.ports import Durability
    from linkspan.stores.postgres_place import Connection

__all__ = ["durability"]

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
    return judge({row[0]: str(row[1] or "") for row in await connection.fetch(_FACTS, list(NAMES))})
