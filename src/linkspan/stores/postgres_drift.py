"""How our tables differ from what they should be: they are made anew as temporary ones, compared by the catalogue, and undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.postgres_sql import own_scripts

if TYPE_CHECKING:
    from linkspan.stores.postgres_place import Connection, Place

__all__ = ["drift"]

# What tables are made of, each part with its definition; an index or a constraint of the user's own is no concern of ours.
_PARTS = """
select 'column', c.relname || '.' || a.attname,
  format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
  || case a.attidentity when '' then '' else ' generated as identity' end || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = $1::oid and c.relkind in ('r', 'p') and c.relname like 'linkspan\\_%' and a.attnum > 0 and not a.attisdropped
union all
select 'constraint', c.relname || '.' || pg_get_constraintdef(k.oid), ''
from pg_constraint k join pg_class c on c.oid = k.conrelid
where c.relnamespace = $1::oid and c.relname like 'linkspan\\_%' and k.contype in ('p', 'u', 'f', 'c', 'x')
union all
select 'index', i.relname,
  regexp_replace(pg_get_indexdef(i.oid), ' ON [^ ]*\\.', ' ON ') || case when x.indisvalid then '' else ' invalid' end
from pg_index x join pg_class i on i.oid = x.indexrelid
where i.relnamespace = $1::oid and i.relname like 'linkspan\\_%'
  and not exists (select 1 from pg_constraint k where k.conindid = i.oid and k.contype = 'p')
"""


async def drift(connection: Connection, place: Place, wanted_format: int) -> tuple[str, ...]:
    """Say what differs from tables of a format. Settings of storage and vacuum are the operator's, and no drift."""
    inner = connection.transaction()
    await inner.start()
    try:
        await connection.execute("set local search_path = pg_temp")
        for number, script in own_scripts():
            if number <= wanted_format:
                await connection.execute(script)
        wanted = await _parts(connection, "pg_my_temp_schema()")
    finally:
        await inner.rollback()
    found = await _parts(connection, f"'{place.quoted}'::regnamespace")
    lines: list[str] = []
    for (kind, part), definition in wanted.items():
        if (kind, part) not in found:
            lines.append(f"the {kind} {part} is missing")
        elif found[kind, part] != definition:
            lines.append(f"the {kind} {part} is '{found[kind, part]}', not '{definition}'")
    tables = {part.partition(".")[0] for kind, part in wanted if kind == "column"}
    lines += [
        f"the {kind} {part} is not ours"
        for kind, part in found
        if kind == "column" and (kind, part) not in wanted and part.partition(".")[0] in tables
    ]
    return tuple(lines)


async def _parts(connection: Connection, schema: str) -> dict[tuple[str, str], str]:
    rows = await connection.fetch(_PARTS.replace("$1::oid", f"({schema})::oid"))
    return {(row[0], row[1]): row[2] for row in rows}
