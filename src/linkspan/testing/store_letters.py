"""What every store promises about held letters, migrations, old inbox ids and itself."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from linkspan.envelope import claim
from linkspan.errors import Code, SetupError
from linkspan.letters.correction import replace_letter
from linkspan.letters.desk import Choice, Desk
from linkspan.letters.redrive import Progress, Redrive, Redrives, failed_again, taken
from linkspan.ports import LetterState, Outcome
from linkspan.runtime import system
from linkspan.testing.store_probe import INSERT, SCRIPTS, TOPIC, SetClock, Settled, StoreScenarios, effects, expect, letter, refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from linkspan.ports import Letter, Store

__all__ = ["LetterScenarios"]


async def hold(store: Store, *held: Letter) -> list[Letter]:
    """Add letters, a unit each, and return all as stored."""
    done = Settled()
    units = [done.unit() for _ in held]
    for unit, each in zip(units, held, strict=True):
        store.add_letter(unit, each)
    expect(await done.submit(store, *units), [Outcome.COMMITTED] * len(units), "letters are stored")
    return await store.letters()


async def wrong_setup(store: Store, scripts: Sequence[tuple[str, str]], name: str) -> None:
    """Migrate where it must fail with a `SetupError` that names the script."""
    try:
        await store.migrate(scripts)
    except SetupError as error:
        expect(name in str(error), True, f"the error names '{name}'")
    else:
        raise AssertionError(f"the migration with '{name}' was accepted")


class LetterScenarios(StoreScenarios):
    """Letters, migrations, forgetting, attesting."""

    # --- letters

    async def test_letters_come_back_as_they_were(self, tmp_path: Path) -> None:
        """Every field of a letter survives a restart; headers and data byte for byte."""
        given = letter("1", state=LetterState.PARKED, due=7.5)
        async with self.store(tmp_path) as store:
            await hold(store, given)
        async with self.store(tmp_path) as store:
            (found,) = await store.letters()
            expect(astuple(replace(found, position=0)), astuple(given), "the letter is as it was")
            expect(await store.letter(found.position), found, "it is found by position")
            expect(await store.letter(found.position + 1), None, "no letter, no answer")
            expect(await store.held_keys(), {(TOPIC, "k")}, "its key is held")

    async def test_letters_of_a_key_keep_their_order(self, tmp_path: Path) -> None:
        """Letters stand in order of arrival; the next of a key is its first, and moves up when that one is removed."""
        done = Settled()
        async with self.store(tmp_path) as store:
            found = await hold(store, letter("1", "x"), letter("2", "y"), letter("3", "x"), letter("4", "x"))
            expect([each.id for each in found], ["1", "2", "3", "4"], "in order of arrival")
            unit = done.unit(statements=[(INSERT, ("a", 1))])
            store.remove_letter(unit, found[0].position)
            await done.submit(store, unit)
            first = await store.next_letter(TOPIC, "x")
            expect(first and first.id, "3", "the next moves up")
            expect(await store.next_letter("shop.commands", "x"), None, "another topic has none")
            expect([each.id for each in await store.letters(limit=2)], ["2", "3"], "the list is bounded")
            expect([each.id for each in await store.letters(after=found[1].position)], ["3", "4"], "and goes on where it ended")

    async def test_letter_is_added_once(self, tmp_path: Path) -> None:
        """Adding the same (topic, source, id) again changes nothing, and fails nothing."""
        async with self.store(tmp_path) as store:
            await hold(store, letter("1", state=LetterState.PARKED))
            found = await hold(store, replace(letter("1"), attempts=9), letter("2"), replace(letter("1"), source="stock"))
            expect(
                [(each.id, each.source, each.attempts) for each in found],
                [("1", "orders", 3), ("2", "orders", 3), ("1", "stock", 3)],
                "once",
            )

    async def test_letter_of_a_handled_message_is_not_added(self, tmp_path: Path) -> None:
        """A copy that comes after the effect, or after a person discarded its message, is held by nobody."""
        done = Settled()
        shared = replace(letter("2"), topic="shop:shop.events")
        async with self.store(tmp_path) as store:
            await done.submit(store, done.unit(("orders", "1")), done.unit(claim("shop", "orders", "2")))
            found = await hold(store, letter("1"), shared, replace(shared, id="3"))
            expect([each.id for each in found], ["3"], "what was handled is not held")

    async def test_letters_change_with_their_unit(self, tmp_path: Path) -> None:
        """Updating and removing letters commits with the unit's effect, or not at all."""
        done = Settled()
        async with self.store(tmp_path) as store:
            one, two = await hold(store, letter("1", "x"), letter("2", "y"))
            failing = done.unit(statements=[(INSERT, ("a", None))])
            store.remove_letter(failing, one.position)
            store.update_letter(failing, replace(two, attempts=9))
            expect(await done.submit(store, failing), [Outcome.FAILED], "the unit fails")
            expect(await store.letters(), [one, two], "its letters stand as they were")
            changed = replace(
                two, state=LetterState.PARKED, attempts=9, due=8.0, code="unavailable", error="Away.", fingerprint="beef", redrives=2
            )
            unit = done.unit(statements=[(INSERT, ("a", 1))])
            store.remove_letter(unit, one.position)
            store.update_letter(unit, changed)
            await done.submit(store, unit)
            expect((await store.letters(), await effects(store)), ([changed], ["a"]), "all changes together")

    async def test_heads_are_first_of_their_key_and_may_run(self, tmp_path: Path) -> None:
        """Heads are REDRIVE, WAITING, or PARKED and due; whatever stands behind another letter of its key is none."""
        parked, waiting, dead, redrive = LetterState.PARKED, LetterState.WAITING, LetterState.DEAD, LetterState.REDRIVE
        async with self.store(tmp_path) as store:
            await hold(store, letter("later", "a", parked, 50.0), letter("behind parked", "a", waiting), letter("due", "b", parked, 5.0))
            await hold(store, letter("behind due", "b", waiting), letter("dead", "c", dead), letter("behind dead", "c", waiting))
            await hold(store, letter("redrive", "d", redrive), letter("free", "e", waiting))
            expect([each.id for each in await store.heads(10.0, 10)], ["due", "redrive", "free"], "what may run at 10")
            expect([each.id for each in await store.heads(60.0, 10)], ["later", "due", "redrive", "free"], "what may run at 60")
            expect([each.id for each in await store.heads(60.0, 2)], ["later", "due"], "bounded")
            expect([each.id for each in await store.letters(states=[dead, redrive])], ["dead", "redrive"], "letters by state")

    async def test_redrive_works_beside_the_service(self, tmp_path: Path) -> None:
        """A second opener marks dead letters, and only those; the service sees them as heads."""
        async with self.store(tmp_path) as store:
            found = await hold(store, letter("1", "x"), letter("2", "y", LetterState.WAITING), letter("3", "z"))
            beside = self.make_store(tmp_path, system(), exclusive=False)
            await beside.open()
            positions = [each.position for each in found]
            expect(await beside.redrive([*positions[:2], 999], who="ada", why="fixed", at=9.0), 1, "one dead letter changed")
            expect(await beside.redrive(positions[:1], who="ada", why="fixed", at=9.5), 0, "it is not dead any more")
            expect([each.id for each in await beside.letters(states=[LetterState.DEAD])], ["3"], "the other is as it was")
            await beside.aclose()
            expect([each.id for each in await store.heads(0.0, 10)], ["1", "2"], "the service sees it at once")

    async def test_discard_is_final(self, tmp_path: Path) -> None:
        """Discarding ends a dead letter, lets the next of its key move up, and keeps its message from coming back."""
        done = Settled()
        async with self.store(tmp_path) as store:
            one, two, parked = await hold(
                store, letter("1", "x"), letter("2", "x", LetterState.WAITING), letter("3", "y", LetterState.PARKED)
            )
            expect(await store.discard(one.position, who="ada", why="test order", at=9.0), True, "a dead letter is discarded")
            expect(await store.discard(one.position, who="ada", why="again", at=9.0), False, "once")
            expect(await store.discard(parked.position, who="ada", why="wrong", at=9.0), False, "a parked one is not")
            expect([each.id for each in await store.heads(0.0, 10)], ["2", "3"], "the next moves up")
            again = done.unit(("orders", "1"), [(INSERT, ("a", 1))])
            expect(await done.submit(store, again), [Outcome.DUPLICATE], "its message is known as handled")
            expect(await store.next_letter(TOPIC, "x"), two, "the next is as it was")

    async def test_apply_is_one_transaction_beside_the_service(self, tmp_path: Path) -> None:
        """Statements on our own tables are applied together or not at all, and say how many rows each changed."""
        touch = "update linkspan_letter set attempts = attempts + 1 where state = ?"
        async with self.store(tmp_path) as store:
            await hold(store, letter("1", "x"), letter("2", "y"), letter("3", "z", LetterState.WAITING))
            beside = self.make_store(tmp_path, system(), exclusive=False)
            await beside.open()
            expect(await beside.apply([(touch, ("dead",)), (touch, ("parked",))]), [2, 0], "rows changed by each")
            broken = ("insert into linkspan_attempt (topic) values (?)", ("x",))
            await refused(beside.apply([(touch, ("dead",)), broken]), Code.FAILED_PRECONDITION, "a broken constraint")
            await beside.aclose()
            expect([each.attempts for each in await store.letters()], [4, 4, 3], "the failed ones left nothing")

    async def test_desk_reads_and_discards(self, tmp_path: Path) -> None:
        """Letters are found by cause, with what waits behind them, and end for good with an audit row."""
        async with self.store(tmp_path) as store:
            one, _, three, _ = await hold(
                store,
                letter("1", "x"),
                letter("2", "x", LetterState.WAITING),
                letter("3", "y"),
                replace(letter("4", "z"), fingerprint="beef"),
            )
            desk = Desk(store)
            groups = await desk.groups(Choice())
            expect([(each.group, each.count, each.keys, each.behind) for each in groups], [("f00d", 2, 2, 1), ("beef", 1, 1, 0)], "groups")
            expect([each.id for each in await desk.letters(Choice(group="f00d"))], ["1", "3"], "letters of a group")
            expect((await desk.behind(one))[0], 1, "one waits behind it")
            expect(await desk.discard([one, three], who="ada", why="tests", at=9.0), 2, "two are discarded")
            expect(await desk.discard([one, three], who="ada", why="again", at=9.0), 0, "once")
            expect([each.id for each in await store.letters()], ["2", "4"], "the others stand")
            expect(
                [(each.action, each.who, each.id) for each in await desk.audit()],
                [("discard", "ada", "3"), ("discard", "ada", "1")],
                "audit",
            )
            done = Settled()
            again = done.unit(("orders", "1"), [(INSERT, ("a", 1))])
            expect(await done.submit(store, again), [Outcome.DUPLICATE], "its message is known as handled")

    async def test_desk_finds_what_is_due_and_what_was_done(self, tmp_path: Path) -> None:
        """Due are redriven letters and parked ones whose time has come, the first of their keys; deeds come oldest first, once."""
        parked, waiting, dead, redrive = LetterState.PARKED, LetterState.WAITING, LetterState.DEAD, LetterState.REDRIVE
        async with self.store(tmp_path) as store:
            mine = [letter("later", "a", parked, 50.0), letter("due", "b", parked, 5.0), letter("behind", "b", waiting)]
            mine += [letter("dead", "c", dead), letter("redrive", "d", redrive), letter("not first", "c", parked, 1.0)]
            found = await hold(store, *(replace(each, topic="shop:shop.events") for each in mine))
            desk, names = Desk(store), {each.position: each.id for each in found}
            expect({names[position] for _, _, position in await store.due_letters("shop", 10.0, 10)}, {"due", "redrive"}, "what is due")
            expect([place[:2] for place in await store.due_letters("shop", 10.0, 1)], [("shop:shop.events", "b")], "bounded, oldest first")
            expect(await store.due_letters("mail", 10.0, 10), [], "another service has nothing")
            before = await desk.newest_deed()
            await desk.discard([each for each in found if each.id == "dead"], who="ada", why="test", at=9.0)
            deeds = await desk.discards("shop", before)
            expect([each[1:] for each in deeds], [("shop:shop.events", "c")], "what was ended")
            expect(await desk.discards("mail", before), [], "no other service's")
            expect(await desk.discards("shop", deeds[-1][0]), [], "once")

    async def test_redrive_of_many_is_kept_and_counted(self, tmp_path: Path) -> None:
        """A redrive is asked for beside the service, once at a time, and its counts follow from what became of its letters."""
        asked = Redrive("r1", "shop", "", "", 1_000_000, 3, 10.0, 1, 4.0, "ada", "mended", 8.0)
        async with self.store(tmp_path) as store:
            one, two, _ = await hold(store, *(replace(letter(id_, id_), topic="shop:shop.events") for id_ in "123"))
            beside = self.make_store(tmp_path, system(), exclusive=False)
            await beside.open()
            expect(await Redrives(beside).ask(asked), True, "it is asked for")
            expect(await Redrives(beside).ask(replace(asked, id="r2")), False, "one at a time")
            redrives, done = Redrives(store), Settled()
            expect(await redrives.active("shop"), asked, "the service finds it")
            runs = done.unit(statements=[*taken(asked, one.position, 9.0), *taken(asked, two.position, 9.0)])
            store.update_letter(runs, replace(one, state=LetterState.PARKED))
            await done.submit(store, runs)
            expect(await redrives.progress(asked), Progress(2, 2, 0), "two run")
            expect(len(await redrives.left(asked, 0, 10)), 1, "one is left")
            ends = done.unit(statements=[failed_again(two.position)])
            store.remove_letter(ends, one.position)
            await done.submit(store, ends)
            expect(await redrives.progress(asked), Progress(2, 0, 1), "one failed, one was handled")
            expect(await redrives.end(asked, "stopped", who="bob", why="enough", at=9.5), True, "a person ends it")
            expect(await redrives.end(asked, "done", who="eve", why="", at=9.6), False, "once")
            await beside.aclose()
            entries = await Desk(store).audit("shop")
            expect([each.action for each in entries], ["redrive stopped", "redrive", "redrive", "redrive"], "all of it is audited")

    async def test_edited_copy_takes_its_letters_place(self, tmp_path: Path) -> None:
        """A copy has the original's place; the original is kept, and never has an effect any more."""
        async with self.store(tmp_path) as store:
            one, two = await hold(store, letter("1", "x"), letter("2", "x", LetterState.WAITING))
            copy = ("1b", b"b: c\r\n", b"\x01")
            expect(await replace_letter(store, one, copy, who="ada", why="typo", at=9.0), True, "it is replaced")
            expect(await replace_letter(store, one, copy, who="ada", why="typo", at=9.0), False, "once")
            expect(await replace_letter(store, two, copy, who="ada", why="typo", at=9.0), False, "a waiting one is not")
            first = await store.next_letter(TOPIC, "x")
            expect(first, replace(one, id="1b", headers=copy[1], data=copy[2]), "the copy is first of its key")
            expect(await Desk(store).origin(replace(one, id="1b")), "1", "it knows what it corrects")
            done = Settled()
            expect(await done.submit(store, done.unit(("orders", "1"))), [Outcome.DUPLICATE], "the original is known as handled")

    # --- migrations

    async def test_migrations_run_once_in_order(self, tmp_path: Path) -> None:
        """Scripts run in order, once, over restarts; a script may hold many statements and triggers."""
        script = f"insert into note values ('a; b'); -- a comment; with a semicolon\n{self.TRIGGER}\n-- the end"  # noqa: S608 - the adapter's own text
        more = ("002_log", script)
        done = Settled()
        async with self.store(tmp_path) as store:
            await store.migrate([*SCRIPTS, more])
            await store.migrate([*SCRIPTS, more])
        async with self.store(tmp_path, scripts=[*SCRIPTS, more]) as store:
            await done.write(store, "x")
            expect(await store.read("select line from note"), [("a; b",), ("x",), ("t",)], "each script ran once")

    async def test_changed_or_missing_migration_is_refused(self, tmp_path: Path) -> None:
        """An applied script that changed or is gone, and one that fails, raise `SetupError` with its name; nothing of it stays."""
        async with self.store(tmp_path) as store:
            await wrong_setup(store, [(SCRIPTS[0][0], SCRIPTS[0][1] + " ")], "001_effect")
            await wrong_setup(store, [], "001_effect")
            await wrong_setup(store, [*SCRIPTS, ("002_bad", "insert into note values ('x'); insert into nowhere values (1);")], "002_bad")
            await wrong_setup(store, [*SCRIPTS, ("002_bad", "insert into note values ('x'); commit;")], "002_bad")
            expect(await store.read("select * from note"), [], "a failed script leaves nothing")
            await store.migrate([*SCRIPTS, ("002_good", "insert into note values ('y')")])
            expect(await store.read("select * from note"), [("y",)], "a corrected one runs")

    # --- the rest

    async def test_forget_removes_only_old_ids(self, tmp_path: Path) -> None:
        """Inbox ids older than the moment are forgotten, the others still suppress duplicates."""
        done, clock = Settled(), SetClock(100.0)
        async with self.store(tmp_path, replace(system(), clock=clock)) as store:
            await done.submit(store, done.unit(("s", "old")))
            clock.time = 200.0
            await done.submit(store, done.unit(("s", "new")))
            expect((await store.forget(150.0), await store.forget(150.0)), (1, 0), "one was old")
            outcomes = await done.submit(store, done.unit(("s", "old")), done.unit(("s", "new")))
            expect(outcomes, [Outcome.COMMITTED, Outcome.DUPLICATE], "the old is new again, the new is known")

    async def test_store_says_what_a_commit_is_worth(self, tmp_path: Path) -> None:
        """The attestation names a level, and gives reasons where it is not `power`."""
        async with self.store(tmp_path) as store:
            found = await store.attest()
            expect(found.level in {"power", "process", "none"}, True, "a known level")
            expect(found.level == "power" or bool(found.reasons), True, "a lower level has reasons")
            expect(bool(found.engine and found.facts), True, "the facts are shown")
