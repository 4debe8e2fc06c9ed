"""Who has which lanes of a service: members that are alive by the database's clock, and an epoch that grows with each taking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.envelope import LANES
from linkspan.ports import Tenure
from linkspan.stores.postgres_sql import QUERIES

if TYPE_CHECKING:
    from collections.abc import Collection

    from linkspan.stores.postgres_place import Connection

__all__ = ["held", "left"]

PAUSED = "1000"
"""Milliseconds after which the server ends the transaction of a process that stands still in it: the others wait for it meanwhile."""


async def held(connection: Connection, service: str, instance: str, keep: Collection[int] | None, lease: float) -> Tenure:
    """Renew a member, give back what it does not keep, take what is free up to its share. One settles at a time for a service.

    A lane in which an earlier owner's commit is under way is left for the next time.
    """
    async with connection.transaction():
        await connection.execute(QUERIES["lanes_lock"], service, PAUSED)
        await connection.execute(QUERIES["lanes_make"], service, LANES)
        await connection.execute(QUERIES["member_lives"], service, instance, lease)
        await connection.execute(QUERIES["members_bury"], service)
        if keep is not None:
            await connection.execute(QUERIES["lanes_give"], service, instance, list(keep))
        members = [row[0] for row in await connection.fetch(QUERIES["members"], service)]
        each, over = divmod(LANES, len(members))
        share = each + (members.index(instance) < over)
        taken = await connection.fetch(QUERIES["lanes_take"], service, instance, share)
        mine = await connection.fetch(QUERIES["lanes_mine"], service, instance)
    return Tenure({row[0]: row[1] for row in mine}, share, len(members), frozenset(row[0] for row in taken if row[1]))


async def left(connection: Connection, service: str, instance: str) -> None:
    """Give back all lanes and end the membership."""
    async with connection.transaction():
        await connection.execute(QUERIES["lanes_lock"], service, PAUSED)
        await connection.execute(QUERIES["lanes_give"], service, instance, None)
        await connection.execute(QUERIES["member_leave"], service, instance)
