"""How a session that handles a message of a lane ends on PostgreSQL: fence and mark, one statement where it is the next of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pytest

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.stores.postgres import PostgresStore
from linkspan.testing.store_probe import INSERT, SCRIPTS, Settled, effects

if TYPE_CHECKING:
    from linkspan.ports import Unit
    from tests.integration.postgres_runner import PostgresRunner

SERVICE, LANE = "shop", 3


class Lane:
    """A store whose lane is ours, and sessions for messages of one key."""

    def __init__(self, postgres: PostgresRunner, schema: str) -> None:
        self.store = PostgresStore(postgres.url(schema=schema), name="shop", runtime=system())
        self.done = Settled()
        self.sent: list[str] = []
        self.epoch = 0
        self.last: Unit

    async def __aenter__(self) -> Self:
        await self.store.open()
        await self.store.migrate(SCRIPTS)
        self.epoch = (await self.store.hold_lanes(SERVICE, "a", keep=None, lease=60)).lanes[LANE]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.aclose()

    async def handle(self, sequence: int, *, skip_gap: bool = False, epoch: int = 0) -> Unit:
        """Write an effect for the message with this number, and commit."""
        unit = self.last = self.done.unit(("orders", f"m{sequence}"))
        unit.fence = (SERVICE, LANE, epoch or self.epoch)
        unit.mark = ("shop<orders", "orders.events", "k", sequence)
        unit.skip_gap = skip_gap
        begun = await self.store.begin(unit, INSERT, (f"m{sequence}", 1))
        assert begun is not None
        (session,) = self.store._around.sessions
        assert session._connection is not None
        session._connection.add_query_logger(self._hear)
        self.sent.clear()
        await session.commit()
        return unit

    def _hear(self, record: object) -> None:
        self.sent.append(str(getattr(record, "query", "")).split(maxsplit=1)[0])


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name.lower())[-50:].lstrip("_0123456789")


async def test_messages_in_order_pass_by_one_statement_before_the_commit(postgres: PostgresRunner, schema: str) -> None:
    async with Lane(postgres, schema) as lane:
        for sequence in (5, 6, 7):  # a key without a mark takes any number
            assert (await lane.handle(sequence)).outcome is Outcome.COMMITTED
        assert lane.sent[-2:] == ["with", "commit"]
        assert "select" not in lane.sent  # which is what each step would be otherwise
        assert await effects(lane.store) == ["m5", "m6", "m7"]


@pytest.mark.parametrize(
    ("sequence", "epoch", "outcome"),
    [(8, 0, Outcome.GAP), (6, 0, Outcome.DUPLICATE), (7, 99, Outcome.MOVED)],
    ids=["gap", "again", "moved"],
)
async def test_message_that_may_not_enter_leaves_nothing(
    postgres: PostgresRunner, schema: str, sequence: int, epoch: int, outcome: Outcome
) -> None:
    async with Lane(postgres, schema) as lane:
        await lane.handle(5)
        await lane.handle(6)
        if outcome is Outcome.DUPLICATE:  # its inbox row and effect are gone, as after the retention: the mark alone knows it
            assert await lane.store.forget(system().clock.now() + 60) == 2
            await lane.done.submit(lane.store, lane.done.unit(statements=[("delete from effect where id = ?", ("m6",))]))
        before = await effects(lane.store)
        with pytest.raises(Error) as refused:
            await lane.handle(sequence, epoch=epoch)
        assert (refused.value.code, lane.last.outcome) == (Code.ABORTED, outcome)
        assert await effects(lane.store) == before
        assert (await lane.handle(7)).outcome is Outcome.COMMITTED


async def test_gap_that_a_person_accepted_is_taken(postgres: PostgresRunner, schema: str) -> None:
    async with Lane(postgres, schema) as lane:
        await lane.handle(1)
        assert (await lane.handle(4, skip_gap=True)).outcome is Outcome.COMMITTED
        assert (await lane.handle(5)).outcome is Outcome.COMMITTED
