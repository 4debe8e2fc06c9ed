"""What every store promises about messages that leave later, and letters past their expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.ports import LetterState, Outcome
from linkspan.testing.store_letters import LetterScenarios, hold
from linkspan.testing.store_probe import INSERT, NOTHING, Settled, effects, expect, letter, message, opened, row

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Outgoing, Store, Unit

__all__ = ["ScheduledScenarios"]

SOURCE = "/shop"


def later(store: Store, unit: Unit, id: str, due: float, key: str = "k", source: str = SOURCE) -> None:  # noqa: A002 - the CloudEvents word
    """Schedule a message with a unit."""
    store.add_scheduled(unit, message(id, key), due, source)


async def take(store: Store, done: Settled, now: float, limit: int = 100) -> list[Outgoing]:
    """Move what is due into the outbox and return it."""
    unit = done.unit()
    found = await store.begin(unit, *store.taking(now, limit))
    if found is None:
        raise AssertionError("a unit without a claim was a duplicate")
    session, rows = found
    unit.messages += [each.message for each in store.taken(rows)]
    await session.commit()
    return unit.messages


class ScheduledScenarios(LetterScenarios):
    """Scheduling, moving, cancelling, expiring."""

    async def test_scheduled_message_waits_with_its_effect(self, tmp_path: Path) -> None:
        """A message is scheduled if and only if its unit commits, survives a restart, and is no outbox row until it is taken."""
        done = Settled()
        async with self.store(tmp_path) as store:
            kept = done.unit(statements=[(INSERT, ("a", 1))])
            later(store, kept, "m", 50.0)
            failed = done.unit(statements=[(INSERT, ("a", 1))])
            later(store, failed, "lost", 40.0)
            expect(await done.submit(store, kept, failed), [Outcome.COMMITTED, Outcome.FAILED], "the second breaks a constraint")
        async with self.store(tmp_path) as store:
            (found,) = await store.scheduled()
            expect((row(found.message), found.due, found.source), (row(message("m")), 50.0, SOURCE), "it is as it was given")
            expect(found.position > 0, True, "it knows its row")
            expect((await store.next_due(), await store.depth()), (50.0, (0, 0.0)), "it waits beside the outbox")

    async def test_due_messages_are_taken_in_order(self, tmp_path: Path) -> None:
        """What is due leaves by due time, then by commit; each has the next number of its key, once, and the rest stays."""
        done = Settled()
        async with self.store(tmp_path) as store:
            for id_, due in (("c", 30.0), ("a", 10.0), ("b1", 20.0), ("b2", 20.0), ("d", 40.0)):
                unit = done.unit()
                later(store, unit, id_, due)
                await done.submit(store, unit)
            expect([m.id for m in await take(store, done, 30.0, 2)], ["a", "b1"], "the earliest, as many as asked for")
            expect([m.id for m in await take(store, done, 30.0)], ["b2", "c"], "the others that are due")
            expect(await take(store, done, 30.0), [], "each once")
            waiting = [(m.id, m.sequence) for m in await store.unsent(0, 9)]
            expect(waiting, [("a", 1), ("b1", 2), ("b2", 3), ("c", 4)], "they are outbox rows, numbered as they left")
            expect([each.message.id for each in await store.scheduled()], ["d"], "what is not due stays")

    async def test_rolled_back_taking_takes_nothing(self, tmp_path: Path) -> None:
        """Taking is undone with its transaction."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit()
            later(store, unit, "m", 10.0)
            await done.submit(store, unit)
            session = await opened(store.begin(done.unit(), *store.taking(10.0, 9)))
            await session.rollback()
            expect([m.id for m in await take(store, done, 10.0)], ["m"], "it is still there")

    async def test_same_id_is_scheduled_once(self, tmp_path: Path) -> None:
        """The same (source, id) again changes nothing; another source is another message."""
        done = Settled()
        async with self.store(tmp_path) as store:
            units = [done.unit(), done.unit(), done.unit()]
            later(store, units[0], "m", 10.0)
            later(store, units[1], "m", 99.0)
            later(store, units[2], "m", 20.0, source="/stock")
            expect(await done.submit(store, *units), [Outcome.COMMITTED] * 3, "a repeat fails nobody")
            expect([(each.source, each.due) for each in await store.scheduled()], [("/shop", 10.0), ("/stock", 20.0)], "the first stands")
            expect([each.due for each in await store.scheduled("/stock")], [20.0], "one source alone can be asked for")

    async def test_cancelling_is_part_of_a_transaction(self, tmp_path: Path) -> None:
        """A cancel says whether there was one, counts what its own transaction scheduled, and is undone with it."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit()
            later(store, unit, "m", 10.0)
            later(store, unit, "n", 20.0)
            await done.submit(store, unit)
            session = await opened(store.begin(done.unit(), *store.cancelling(SOURCE, "m")))
            await session.rollback()
            expect(len(await store.scheduled()), 2, "a cancel that is rolled back cancels nothing")
            own = done.unit()
            later(store, own, "own", 5.0)
            session = await opened(store.begin(own, NOTHING))
            found = [bool(await session.execute(*store.cancelling(SOURCE, id_))) for id_ in ("m", "m", "own", "other")]
            wrong = bool(await session.execute(*store.cancelling("/stock", "n")))
            await session.commit()
            expect((found, wrong), ([True, False, True, False], False), "it says whether there was one of this source")
            expect([each.message.id for each in await store.scheduled()], ["n"], "what was cancelled is gone")

    async def test_cancel_by_row_is_audited(self, tmp_path: Path) -> None:
        """From beside a running service one row of one source is cancelled, once, with who and why."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit()
            later(store, unit, "m", 10.0)
            await done.submit(store, unit)
            (found,) = await store.scheduled()
            other = await store.cancel_scheduled(found.position, "/stock", who="eve", why="not hers", at=5.0)
            first = await store.cancel_scheduled(found.position, SOURCE, who="ann", why="sold out", at=5.0)
            again = await store.cancel_scheduled(found.position, SOURCE, who="ann", why="sold out", at=6.0)
            expect((other, first, again), (False, True, False), "its own source's, and once")
            audit = await store.read("select at, action, who, why, source, id, type from linkspan_audit")
            expect(audit, [(5.0, "cancel", "ann", "sold out", SOURCE, "m", "shop.OrderPlaced")], "who and why are kept")

    async def test_scheduled_is_read_in_pages(self, tmp_path: Path) -> None:
        """Pages follow each other by due time and row."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit()
            for number, due in enumerate((10.0, 10.0, 10.0, 20.0, 20.0)):
                later(store, unit, f"m{number}", due)
            await done.submit(store, unit)
            first = await store.scheduled(limit=2)
            rest = await store.scheduled(after=(first[-1].due, first[-1].position))
            expect([each.message.id for each in [*first, *rest]], [f"m{number}" for number in range(5)], "none is missed or twice")

    async def test_expired_letter_ends_audited(self, tmp_path: Path) -> None:
        """A letter past its expiry is removed with its audit row, in one unit."""
        done = Settled()
        async with self.store(tmp_path) as store:
            (held,) = await hold(store, letter("1", state=LetterState.PARKED))
            unit = done.unit(statements=[(INSERT, ("a", 1))])
            store.expire_letter(unit, held.position, who="mail", at=7.0)
            expect(await done.submit(store, unit), [Outcome.COMMITTED], "the unit commits")
            expect((len(await store.letters()), await effects(store)), (0, ["a"]), "the letter is gone, with the unit's effect")
            audit = await store.read("select at, action, who, letter, id from linkspan_audit")
            expect(audit, [(7.0, "expire", "mail", held.position, "1")], "and audited")
