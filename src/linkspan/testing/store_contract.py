"""What every store promises, as scenarios that an adapter runs against itself.

    class TestMine(StoreContract):
        def make_store(self, place, runtime, *, exclusive=True):
            return MyStore(place / "state", name="shop", runtime=runtime, exclusive=exclusive)

Each `test_` method is a coroutine that takes an empty directory and raises `AssertionError` where the store breaks its word.
User tables are made by migration; statements have `?` for parameters.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code
from linkspan.ports import Outcome, Unit
from linkspan.runtime import system
from linkspan.testing.store_probe import INSERT, NOTHING, SetClock, Settled, effects, expect, message, opened, refused, row
from linkspan.testing.store_scheduled import ScheduledScenarios

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from linkspan.ports import Outgoing, Session

    _Opened = tuple[Session, list[tuple[Any, ...]]] | None

__all__ = ["StoreContract"]


class StoreContract(ScheduledScenarios):
    """Units, outbox, sessions and reading; scheduled messages, letters and migrations are inherited. Subclass it and fill `make_store`."""

    # --- recorded units

    async def test_unit_commits_claim_effect_and_message(self, tmp_path: Path) -> None:
        """Claim, effect and message of a unit are there once it is settled."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit(("orders", "1"), [(INSERT, ("a", 5))], [message("m")])
            expect(await done.submit(store, unit), [Outcome.COMMITTED], "the unit commits")
            expect(await store.read("select id, amount from effect"), [("a", 5)], "the effect is readable after settling")
            expect([m.id for m in await store.unsent(0, 10)], ["m"], "the message waits in the outbox")
            expect(unit.messages[0].sequence, 1, "the first message of a key has sequence 1")
            expect(unit.messages[0].position > 0, True, "the message knows its row")

    async def test_failed_unit_leaves_nothing(self, tmp_path: Path) -> None:
        """A unit whose statement fails writes nothing, and gives its inbox claim back."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit(("orders", "1"), [(INSERT, ("a", 1)), (INSERT, ("b", None))], [message("m")])
            expect(await done.submit(store, unit), [Outcome.FAILED], "a broken constraint fails the unit")
            expect(unit.error and unit.error.code, Code.FAILED_PRECONDITION, "its error is coded")
            expect(await effects(store), [], "it has no effect")
            expect(await store.unsent(0, 10), [], "it sends nothing")
            again = done.unit(("orders", "1"), [(INSERT, ("a", 1))])
            expect(await done.submit(store, again), [Outcome.COMMITTED], "its inbox id is free again")

    async def test_duplicate_writes_nothing(self, tmp_path: Path) -> None:
        """A known inbox id skips statements and messages, within a group and after a restart."""
        done = Settled()

        def unit(source: str, row: str) -> Unit:
            return done.unit((source, "1"), [(INSERT, (row, 1))], [message(row)])

        async with self.store(tmp_path) as store:
            outcomes = await done.submit(store, unit("orders", "a"), unit("orders", "b"), unit("stock", "c"))
            expect(outcomes, [Outcome.COMMITTED, Outcome.DUPLICATE, Outcome.COMMITTED], "only the repeated (source, id) is a duplicate")
        async with self.store(tmp_path) as store:
            expect(await done.submit(store, unit("stock", "d")), [Outcome.DUPLICATE], "the inbox survives a restart")
            expect(await effects(store), ["a", "c"], "duplicates have no effect")
            expect([m.id for m in await store.unsent(0, 10)], ["a", "c"], "duplicates send nothing")

    async def test_failing_unit_fails_alone(self, tmp_path: Path) -> None:
        """One failing unit of a group does not fail the others, and order stays."""
        done = Settled()
        async with self.store(tmp_path) as store:
            units = [done.unit(("s", str(n)), [(INSERT, ("same" if n in {3, 6} else f"r{n}", n))], [message(f"m{n}")]) for n in range(9)]
            outcomes = await done.submit(store, *units)
            expect([n for n, outcome in enumerate(outcomes) if outcome is Outcome.FAILED], [6], "only the failing unit fails")
            expect(units[6].error and units[6].error.code, Code.ALREADY_EXISTS, "a broken unique constraint has its code")
            expect(len(await effects(store)), 8, "all others are written")
            expect(
                [m.id for m in await store.unsent(0, 20)], ["m0", "m1", "m2", "m3", "m4", "m5", "m7", "m8"], "their messages keep the order"
            )

    async def test_units_settle_in_order(self, tmp_path: Path) -> None:
        """Units settle in the order of submission, over many groups, failures and duplicates included."""
        done = Settled()
        async with self.store(tmp_path) as store:
            units = [done.unit(("s", str(n % 700)), [(INSERT, (f"r{n % 650}", n))]) for n in range(1000)]
            await done.submit(store, *units)
            expect([units.index(unit) for unit in done.order], list(range(1000)), "settled in order of submission")
            expect([unit.outcome for unit in units].count(Outcome.COMMITTED), 650, "each row once")

    async def test_settled_callback_that_raises_harms_nobody(self, tmp_path: Path) -> None:
        """A callback's exception reaches the loop's handler; the other units are settled."""
        done, loop = Settled(), asyncio.get_running_loop()
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: reports.append(context))

        def broken(_unit: Unit) -> None:
            raise ValueError("broken callback")

        async with self.store(tmp_path) as store:
            store.submit(Unit(broken, None, [(INSERT, ("a", 1))]))
            expect(await done.submit(store, done.unit(statements=[(INSERT, ("b", 1))])), [Outcome.COMMITTED], "the next is settled")
            expect([repr(report["exception"]) for report in reports], ["ValueError('broken callback')"], "the fault is reported once")

    async def test_commits_are_named(self, tmp_path: Path) -> None:
        """Each commit, recorded or interactive, passes `store.commit.before` and `.after`."""
        points: list[str] = []
        done = Settled()
        async with self.store(tmp_path, replace(system(), reached=points.append)) as store:
            points.clear()
            await done.write(store, "a")
            expect(points, ["store.commit.before", "store.commit.after"], "a group commit is named")
            session = await opened(store.begin(done.unit(), NOTHING))
            await session.execute(INSERT, ("b", 1))
            await session.commit()
            expect(points, ["store.commit.before", "store.commit.after"] * 2, "an interactive commit is named")

    async def test_wrong_statement_is_internal(self, tmp_path: Path) -> None:
        """Wrong SQL or arguments end with INTERNAL, and the text holds no value."""
        done = Settled()
        wrong: list[tuple[str, Sequence[Any]]] = [
            ("insert into nowhere values (?)", ("secret",)),
            (INSERT, ("secret",)),
            (INSERT, ("x", object())),
        ]
        wrong += [("insert into effect values ('secret, 1)", ()), (INSERT, ("secret", 1 << 80)), (INSERT, ("\ud800", 1))]
        async with self.store(tmp_path) as store:
            for statement in wrong:
                unit = done.unit(statements=[statement])
                await done.submit(store, unit)
                expect(unit.error and unit.error.code, Code.INTERNAL, f"{statement[0]} is the programmer's mistake")
                expect("secret" in str(unit.error), False, "no value in the error's text")
            await done.write(store, "a")

    async def test_transactions_belong_to_the_store(self, tmp_path: Path) -> None:
        """A statement that begins, commits or undoes a transaction is refused."""
        done = Settled()
        async with self.store(tmp_path) as store:
            for sql in ("commit", "ROLLBACK", "begin", "savepoint s"):
                unit = done.unit(statements=[(INSERT, ("a", 1)), (sql, ())])
                await done.submit(store, unit)
                expect(unit.error and unit.error.code, Code.INVALID_ARGUMENT, f"'{sql}' is refused")
            expect(await effects(store), [], "nothing slipped through")

    # --- outbox

    async def test_sequences_count_per_topic_and_key(self, tmp_path: Path) -> None:
        """Sequences count from 1 per (topic, key) in commit order, without holes by failures, on after a restart."""
        done = Settled()

        def unit(id: str, *messages: Outgoing) -> Unit:  # noqa: A002 - the inbox id
            return done.unit(("s", id), [(INSERT, (id[0], 1))], messages)

        async with self.store(tmp_path) as store:
            units = [unit("a", message("1", "x"), message("2", "y")), unit("b", message("3", "x"))]
            units += [
                unit("a2", message("lost", "x")),
                unit("b", message("lost", "x")),
                unit("c", message("4", "x"), message("5", "x", "shop.commands")),
            ]
            await done.submit(store, *units)
        async with self.store(tmp_path) as store:
            await done.submit(store, unit("d", message("6", "x"), message("7", "x", "shop.commands"), message("8", "new")))
            found = [(m.id, m.sequence) for m in await store.unsent(0, 99)]
        expect(found, [("1", 1), ("2", 1), ("3", 2), ("4", 3), ("5", 1), ("6", 4), ("7", 2), ("8", 1)], "sequence per topic and key")

    async def test_unsent_is_complete_and_in_order(self, tmp_path: Path) -> None:
        """Outbox rows come back as they were written, in commit order, by pages, after a restart too."""
        done = Settled()
        messages = [message(f"m{n}", f"k{n % 3}") for n in range(600)]
        async with self.store(tmp_path) as store:
            await done.submit(store, *(done.unit(messages=messages[n : n + 2]) for n in range(0, 600, 2)))
        async with self.store(tmp_path) as store:
            found: list[Outgoing] = []
            while page := await store.unsent(found[-1].position if found else 0, 64):
                expect(len(page) in range(65), True, "a page is bounded")
                found += page
            expect([row(m) for m in found], [row(m) for m in messages], "rows are as written, in order of commit")
            expect(sorted({m.position for m in found}), [m.position for m in found], "positions rise")

    async def test_sent_rows_do_not_come_back(self, tmp_path: Path) -> None:
        """Rows named to `sent` are gone from `unsent` at once and from the store after a clean close."""
        done = Settled()
        messages = [message(str(n)) for n in range(300)]
        async with self.store(tmp_path) as store:
            await done.submit(store, done.unit(messages=messages))
            store.sent(messages[:1] + messages[2:])
            expect(store.deleting(messages[0].position), True, "a sent row is being deleted from then on")
            expect([m.id for m in await store.unsent(0, 10)], ["1"], "a sent row is not unsent")
            expect((await store.depth())[0], 1, "nor counted")
            expect(store.deleting(messages[1].position), False, "an unsent row is not being deleted")
        async with self.store(tmp_path) as store:
            expect([m.id for m in await store.unsent(0, 10)], ["1"], "its deletion is durable")

    async def test_positions_are_never_given_twice(self, tmp_path: Path) -> None:
        """A new row is above all before it, though the outbox was empty and the store restarted."""
        done = Settled()
        first, second = message("1"), message("2")
        async with self.store(tmp_path) as store:
            await done.submit(store, done.unit(messages=[first]))
            store.sent([first])
        async with self.store(tmp_path) as store:
            await done.submit(store, done.unit(messages=[second]))
        expect(second.position > first.position, True, "positions rise over restarts")

    async def test_depth_counts_and_dates(self, tmp_path: Path) -> None:
        """`depth` gives the number of rows and the age of the oldest."""
        done, clock = Settled(), SetClock(1000.0)
        async with self.store(tmp_path, replace(system(), clock=clock)) as store:
            expect(await store.depth(), (0, 0.0), "an empty outbox has no age")
            old = message("1")
            await done.submit(store, done.unit(messages=[old]))
            clock.time = 1010.0
            await done.submit(store, done.unit(messages=[message("2")]))
            clock.time = 1015.0
            expect(await store.depth(), (2, 15.0), "two rows, the oldest of 15 s")
            store.sent([old])
            expect(await store.depth(), (1, 5.0), "the sent one no longer counts")

    # --- interactive sessions

    async def test_session_is_exclusive(self, tmp_path: Path) -> None:
        """In a store of one process, what was submitted before a session commits before it; what comes after waits for its end."""
        done = Settled()
        async with self.store(tmp_path) as store:
            if store.shared:
                return  # there sessions run side by side: see the next
            before, after = done.unit(statements=[(INSERT, ("a", 1))]), done.unit(statements=[(INSERT, ("c", 1))])
            store.submit(before)
            inner = done.unit()
            session = await opened(store.begin(inner, NOTHING))
            expect(await session.execute("select id from effect"), [("a",)], "the unit before is visible inside")
            store.submit(after)
            second = asyncio.ensure_future(store.begin(done.unit(), NOTHING))
            await session.execute(INSERT, ("b", 1))
            expect(
                (await store.read("select count(*) from effect"), second.done()), ([(1,)], False), "everybody waits, readers see the past"
            )
            await session.commit()
            await (await opened(_of(second))).rollback()
            expect(done.order, [before, inner, after], "settled in order of commit")
            expect(await effects(store), ["a", "b", "c"], "all were written")

    async def test_sessions_of_a_shared_store_run_side_by_side(self, tmp_path: Path) -> None:
        """In a store that others share, sessions and groups do not wait for each other; a repeat waits, then is a duplicate."""
        done = Settled()
        async with self.store(tmp_path) as store:
            if not store.shared:
                return
            one, two = done.unit(("s", "1")), done.unit(("s", "2"))
            first, second = await opened(store.begin(one, NOTHING)), await opened(store.begin(two, NOTHING))
            await first.execute(INSERT, ("a", 1))
            await second.execute(INSERT, ("b", 1))
            await done.write(store, "c")
            expect(await effects(store), ["c"], "a group commits beside open sessions")
            repeat = asyncio.ensure_future(store.begin(done.unit(("s", "1")), NOTHING))
            await second.commit()
            expect((repeat.done(), await effects(store)), (False, ["b", "c"]), "the repeat waits for the first")
            await first.commit()
            expect(await repeat, None, "and is a duplicate once that is committed")
            expect(done.order[1:], [two, one], "settled in order of commit")

    async def test_session_commits_the_whole_unit(self, tmp_path: Path) -> None:
        """Recorded statements run at begin and are cleared; the rest and the messages are written at commit, then the unit settles."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit(("s", "1"), [(INSERT, ("a", 1))])
            session = await opened(store.begin(unit, NOTHING))
            expect(unit.statements, [], "what has run is cleared")
            expect(await session.execute("select amount from effect where id = ?", ("a",)), [(1,)], "it is visible inside")
            unit.statements.append((INSERT, ("b", 2)))
            unit.messages.append(message("m", "key"))
            await session.commit()
            expect((done.order, unit.outcome), ([unit], Outcome.COMMITTED), "the unit is settled once")
            expect((await effects(store), [m.sequence for m in await store.unsent(0, 9)]), (["a", "b"], [1]), "all is written")
            expect(unit.messages[0].position, (await store.unsent(0, 9))[0].position, "the message knows its row")

    async def test_rollback_undoes_everything(self, tmp_path: Path) -> None:
        """Rollback undoes the claim, the effect and the numbers, settles nothing, and may be repeated."""
        done = Settled()
        async with self.store(tmp_path) as store:
            session = await opened(store.begin(done.unit(("s", "1"), [(INSERT, ("a", 1))], [message("lost")]), NOTHING))
            await session.execute(INSERT, ("b", 1))
            await session.rollback()
            await session.rollback()
            expect(await effects(store), [], "nothing is written")
            expect(done.order, [], "nothing is settled")
            await refused(session.execute("select 1"), Code.FAILED_PRECONDITION, "an ended session refuses")
            unit = done.unit(("s", "1"), messages=[message("m")])
            expect(await done.submit(store, unit), [Outcome.COMMITTED], "the claim was undone")
            expect(unit.messages[0].sequence, 1, "no number was used up")

    async def test_session_of_a_duplicate_is_none(self, tmp_path: Path) -> None:
        """`begin` gives None for a known inbox id, runs nothing, and leaves the writer free."""
        done = Settled()
        async with self.store(tmp_path) as store:
            await done.submit(store, done.unit(("s", "1")))
            expect(await store.begin(done.unit(("s", "1"), [(INSERT, ("a", 1))]), NOTHING), None, "a duplicate opens nothing")
            await done.write(store, "b")
            expect(await effects(store), ["b"], "its statements did not run")

    async def test_failed_execute_leaves_rollback_only(self, tmp_path: Path) -> None:
        """After a failed statement only rollback works: a commit raises and writes nothing."""
        done = Settled()
        async with self.store(tmp_path) as store:
            session = await opened(store.begin(done.unit(("s", "1"), [(INSERT, ("a", 1))]), NOTHING))
            await refused(session.execute(INSERT, ("a", 1)), Code.ALREADY_EXISTS, "the statement fails with its code")
            await refused(session.execute("select 1"), Code.FAILED_PRECONDITION, "no more statements")
            await refused(session.commit(), Code.FAILED_PRECONDITION, "no commit")
            await done.write(store, "b")
            expect(await effects(store), ["b"], "nothing of it is written, and the writer goes on")

    async def test_failed_commit_writes_nothing(self, tmp_path: Path) -> None:
        """A commit whose last statements fail raises, settles nothing, and leaves the writer free."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit(("s", "1"), [(INSERT, ("a", 1))])
            session = await opened(store.begin(unit, NOTHING))
            unit.statements.append((INSERT, ("a", 2)))
            await refused(session.commit(), Code.ALREADY_EXISTS, "the commit fails with the statement's code")
            await session.rollback()
            expect(done.order, [], "the unit is not settled")
            await done.submit(store, done.unit(("s", "1"), [(INSERT, ("b", 1))]))
            expect(await effects(store), ["b"], "only the later unit is written")

    async def test_failed_begin_leaves_the_writer_free(self, tmp_path: Path) -> None:
        """A recorded statement that fails at `begin` raises there, and nothing stays open."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit(("s", "1"), [(INSERT, ("a", 1)), ("insert into nowhere values (1)", ())])
            await refused(store.begin(unit, NOTHING), Code.INTERNAL, "begin raises")
            await done.submit(store, done.unit(("s", "1"), [(INSERT, ("b", 1))]))
            expect(await effects(store), ["b"], "only the later unit is written")

    async def test_cancelled_begin_leaves_the_writer_free(self, tmp_path: Path) -> None:
        """A begin that is cancelled while it waits, or just as it opens, holds nobody up."""
        done = Settled()
        async with self.store(tmp_path) as store:
            for turns in range(4):
                holder = await opened(store.begin(done.unit(), NOTHING))
                waiting = asyncio.ensure_future(store.begin(done.unit(("s", "1"), [(INSERT, ("lost", 1))]), NOTHING))
                await asyncio.sleep(0)
                if turns % 2:
                    await holder.rollback()
                waiting.cancel()
                await asyncio.wait([waiting])
                await holder.rollback()
                await done.write(store, str(turns))
            expect(await effects(store), ["0", "1", "2", "3"], "a cancelled begin writes nothing")

    async def test_cancelled_execute_rolls_back(self, tmp_path: Path) -> None:
        """A cancelled statement ends its transaction without anybody's rollback."""
        done = Settled()
        async with self.store(tmp_path) as store:
            session = await opened(store.begin(done.unit(("s", "1")), NOTHING))
            await session.execute(INSERT, ("a", 1))
            running = asyncio.ensure_future(session.execute(INSERT, ("b", 1)))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
            await done.write(store, "c")
            expect(await effects(store), ["c"], "all of the session is undone")
            await session.rollback()
            expect(await done.submit(store, done.unit(("s", "1"))), [Outcome.COMMITTED], "its claim as well")

    async def test_close_rolls_open_sessions_back(self, tmp_path: Path) -> None:
        """Closing does not wait for a session that nobody ends, and commits what was submitted behind it."""
        done = Settled()
        async with self.store(tmp_path) as store:
            session = await opened(store.begin(done.unit(), NOTHING))
            await session.execute(INSERT, ("lost", 1))
            behind = done.unit(statements=[(INSERT, ("kept", 1))])
            store.submit(behind)
            waiting = asyncio.ensure_future(store.begin(done.unit(), NOTHING))
            await asyncio.sleep(0)
            await asyncio.gather(store.aclose(), store.aclose())
            await refused(_of(waiting), Code.UNAVAILABLE, "who waits for the writer is told")
            expect(behind.outcome, Outcome.COMMITTED, "what was submitted is committed")
            late = done.unit()
            expect(await done.submit(store, late), [Outcome.FAILED], "a closed store takes nothing")
            expect(late.error and late.error.code, Code.UNAVAILABLE, "and says so")
        async with self.store(tmp_path) as store:
            expect(await effects(store), ["kept"], "the open session is undone")

    # --- reading

    async def test_read_cannot_write(self, tmp_path: Path) -> None:
        """A write by `read` raises INVALID_ARGUMENT; wrong SQL raises INTERNAL."""
        done = Settled()
        async with self.store(tmp_path) as store:
            await done.write(store, "a")
            await refused(store.read("delete from effect"), Code.INVALID_ARGUMENT, "a read cannot write")
            await refused(store.read("select nothing from effect"), Code.INTERNAL, "wrong SQL is the programmer's mistake")
            expect(await store.read("select id from effect where id = ?", ("a",)), [("a",)], "reading goes on")


async def _of(future: asyncio.Future[_Opened]) -> _Opened:
    """Await a future as a coroutine."""
    return await future
