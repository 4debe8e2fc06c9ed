"""Outbox rows that the broker has: hidden at once, deleted together, and remembered for as long as an older snapshot shows them."""

from __future__ import annotations

from linkspan.ports import Outgoing
from linkspan.stores.postgres_outbox import Deletions
from linkspan.stores.postgres_place import PostgresLimits
from linkspan.testing.clock import fake_runtime


def row(position: int) -> Outgoing:
    message = Outgoing("shop.events", "Placed", 1, str(position), "k", b"", b"")
    message.position = position
    return message


async def test_rows_are_hidden_at_once_and_handed_over_together() -> None:
    runtime, clock = fake_runtime()
    handed = list[list[Outgoing]]()
    deletions = Deletions(runtime, PostgresLimits(sent_rows=3, sent_delay=0.05), lambda: handed.append(deletions.taken()))
    first, second, third, fourth = map(row, (1, 2, 3, 4))

    deletions.add([first])
    assert (deletions.positions, handed) == ({1}, [])
    await clock.advance(0.05)
    assert handed == [[first]]
    deletions.add([first, second, third])
    deletions.add([fourth])
    assert handed == [[first], [second, third, fourth]]


async def test_a_deleted_row_is_remembered_until_those_who_look_have_seen_the_end() -> None:
    runtime, _ = fake_runtime()
    deletions = Deletions(runtime, PostgresLimits(), lambda: None)
    deletions.add([row(1)])

    with deletions.looking():
        deletions.settled([row(1)], [])
        assert deletions.positions == {1}
    assert deletions.positions == set()


async def test_a_row_that_could_not_be_deleted_goes_again() -> None:
    runtime, clock = fake_runtime()
    handed = list[list[Outgoing]]()
    deletions = Deletions(runtime, PostgresLimits(sent_delay=0.05), lambda: handed.append(deletions.taken()))
    first = row(1)
    deletions.add([first])
    await clock.advance(0.05)
    deletions.settled([], [first])
    await clock.advance(0.05)

    assert handed == [[first], [first]]
    assert deletions.positions == {1}
