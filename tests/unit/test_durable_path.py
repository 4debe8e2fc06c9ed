"""From a commit to an effect: once, in order per key, whatever is repeated, lost or late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from linkspan import Code, Error, Limits
from linkspan.envelope import lane_of
from linkspan.ports import LetterState, Outgoing
from tests.unit.durable import Charge, Noted, Payments, Placed, Receipt, System, note, system, until

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


async def has_effects(run: System, count: int, step: float = 0.0) -> None:
    """Wait until the effects are there, moving the clock by `step` seconds at a time."""

    async def there() -> bool:
        if step:
            await run.clock.advance(step)
        return len(await run.effects()) >= count

    await until(there, f"{count} effects")


async def test_event_has_its_effect_once_and_in_order(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        run.faults.duplicates = 0.4
        await run.publish(*((f"k{number % 3}", number) for number in range(30)))
        await has_effects(run, 30)
        await until(lambda: run.mail.counts.duplicates >= 5, "duplicates seen")

        for key in range(3):
            assert await run.effects(f"select number from effect where key = 'k{key}' order by position") == [
                (n,) for n in range(key, 30, 3)
            ]
        assert len(await run.effects()) == 30


async def test_outbox_is_empty_after_the_broker_confirmed(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await run.publish(("a", 1))
        await has_effects(run, 1)
        relay = run.app.running["orders"].relay
        await relay.flush()

        assert relay.waiting == 0


async def test_message_of_a_commit_that_fails_never_leaves(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        orders = next(each for each in run.app.services if each.name == "orders")

        async def publish_and_fail() -> None:
            async with run.app.transaction(orders) as ctx:
                await ctx.publish(Placed(order="a", number=1))
                ctx.tx.record("insert into not_there values (1)")

        with pytest.raises(Error):
            await publish_and_fail()
        await run.publish(("a", 2))
        await has_effects(run, 1)

        assert await run.effects() == [("a", 2)]


async def test_lost_confirmations_do_not_double(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        run.faults.lost_confirmations = 0.5
        run.faults.lost_publishes = 0.2
        await run.publish(*((f"k{number % 4}", number) for number in range(40)))
        await has_effects(run, 40, step=0.5)
        run.faults.lost_confirmations = run.faults.lost_publishes = 0.0
        await run.clock.advance(5)

        for key in range(4):
            assert await run.effects(f"select number from effect where key = 'k{key}' order by position") == [
                (n,) for n in range(key, 40, 4)
            ]


@pytest.mark.parametrize("fault", ["lost_confirmations", "lost_publishes"])
async def test_batch_in_doubt_is_sent_again_singly(tmp_path: Path, fault: str) -> None:
    async with system(tmp_path) as run:
        orders, relay = run.app.services[0], run.app.running["orders"].relay
        setattr(run.faults, fault, 1.0)
        async with run.app.transaction(orders) as ctx:
            for number in range(200):
                await ctx.publish(Placed(order=f"k{number % 50}", number=number))
        await until(lambda: relay._failures > 0 or not relay.waiting, "the batch and what was sent of it singly have failed")
        assert relay.waiting == 200
        setattr(run.faults, fault, 0.0)
        await has_effects(run, 200, step=0.5)
        await relay.flush()

        for key in range(50):
            numbers = await run.effects(f"select number from effect where key = 'k{key}' order by position")
            assert numbers == [(n,) for n in range(key, 200, 50)]


async def test_broker_away_keeps_rows_and_order(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        run.log.stop()
        await run.publish(*(("a", number) for number in range(5)))
        assert run.app.running["orders"].relay.waiting == 5

        run.log.start()
        await has_effects(run, 5, step=0.5)

        assert await run.effects("select number from effect order by position") == [(n,) for n in range(5)]


async def test_transient_failure_is_retried_with_a_rising_attempt(tmp_path: Path) -> None:
    attempts: list[int] = []

    async def flaky(ctx: Context, event: Placed) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise Error(Code.UNAVAILABLE, "Not yet.")
        await note(ctx, event)

    async with system(tmp_path, flaky) as run:
        await run.publish(("a", 1))

        async def done() -> bool:
            await run.clock.advance(0.1)
            return len(await run.effects()) == 1

        await until(done, "effect")

        assert attempts == [1, 2, 3]
        assert run.mail.counts.retried == 2


def failing(seen: list[tuple[str, int]], fails: set[tuple[str, int]], code: Code) -> object:
    """Make a handler that fails for the chosen messages until they are taken out of the set."""

    async def handler(ctx: Context, event: Placed) -> None:
        seen.append((event.order, event.number))
        if (event.order, event.number) in fails:
            raise Error(code, "No.")
        await note(ctx, event)

    return handler


async def test_failing_key_is_parked_and_others_flow(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    fails = {("bad", 1)}
    async with system(tmp_path, failing(seen, fails, Code.UNAVAILABLE), limits=Limits(inline=1)) as run:
        await run.publish(("bad", 1), ("bad", 2), ("good", 1), ("bad", 3), ("good", 2))
        await has_effects(run, 2)
        await until(lambda: run.mail.counts.parked == 1, "parked")

        async def all_wait() -> bool:
            return len(await run.store.letters()) == 3

        await until(all_wait, "three letters")
        assert [(letter.state, letter.key) for letter in await run.store.letters()] == [
            (LetterState.PARKED, "bad"),
            (LetterState.WAITING, "bad"),
            (LetterState.WAITING, "bad"),
        ]
        fails.clear()
        await has_effects(run, 5, step=0.5)

        assert await run.effects("select number from effect where key = 'bad' order by position") == [(1,), (2,), (3,)]
        await run.publish(("bad", 4))
        await has_effects(run, 6)
        assert await run.store.letters() == []


async def test_after_the_last_parked_try_it_is_dead(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    async with system(tmp_path, failing(seen, {("bad", 1)}, Code.UNAVAILABLE), limits=Limits(inline=1)) as run:
        await run.publish(("bad", 1))
        await until(lambda: run.mail.counts.parked == 1, "parked")

        async def is_dead() -> bool:
            await run.clock.advance(1)
            return [letter.state for letter in await run.store.letters()] == [LetterState.DEAD]

        await until(is_dead, "dead")
        (letter,) = await run.store.letters()

        assert len(seen) == 4
        assert (letter.attempts, letter.code, letter.error) == (4, "unavailable", "No.")
        assert run.clock.now() - letter.first_failed >= 60


async def test_dead_letter_holds_its_key_until_redriven_in_order(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    fails = {("bad", 1)}
    async with system(tmp_path, failing(seen, fails, Code.INVALID_ARGUMENT)) as run:
        await run.publish(("bad", 1), ("bad", 2), ("bad", 3), ("good", 1))
        await has_effects(run, 1)

        async def three() -> bool:
            return len(await run.store.letters()) == 3

        await until(three, "three letters")
        assert seen.count(("bad", 1)) == 1
        (dead,) = await run.store.letters(states=[LetterState.DEAD])
        await run.clock.advance(120)
        assert seen.count(("bad", 2)) == 0

        fails.clear()
        assert await run.store.redrive([dead.position], who="ann", why="fixed", at=run.clock.now()) == 1
        await has_effects(run, 4, step=0.5)
        assert await run.effects("select number from effect where key = 'bad' order by position") == [(1,), (2,), (3,)]


async def test_discarded_letter_frees_its_key_and_never_returns(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    async with system(tmp_path, failing(seen, {("bad", 1)}, Code.INVALID_ARGUMENT)) as run:
        await run.publish(("bad", 1), ("bad", 2))

        async def two() -> bool:
            return len(await run.store.letters()) == 2

        await until(two, "two letters")
        (dead,) = await run.store.letters(states=[LetterState.DEAD])
        assert await run.store.discard(dead.position, who="ann", why="test", at=run.clock.now())
        await has_effects(run, 1, step=0.5)

        run.log.restart()
        await run.clock.advance(2)
        await run.publish(("bad", 3))
        await has_effects(run, 2)
        assert await run.effects() == [("bad", 2), ("bad", 3)]
        assert seen.count(("bad", 1)) == 1


async def test_held_keys_survive_a_restart(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    fails = {("bad", 1)}
    async with system(tmp_path, failing(seen, fails, Code.INVALID_ARGUMENT)) as run:
        await run.publish(("bad", 1))
        await until(lambda: run.mail.counts.dead == 1, "dead")
        log, clock = run.log, run.clock

    async with system(tmp_path, failing(seen, fails, Code.INVALID_ARGUMENT), log=log, clock=clock) as run:
        await run.publish(("bad", 2), ("good", 1))
        await has_effects(run, 1)

        async def waits() -> bool:
            return [letter.state for letter in await run.store.letters()] == [LetterState.DEAD, LetterState.WAITING]

        await until(waits, "the second waits")
        assert seen.count(("bad", 2)) == 0


def outgoing(run: System, headers: bytes, data: bytes, key: str) -> Outgoing:
    return Outgoing("durable.test.v1.events", "Placed", lane_of(key), run.runtime.ids.new(), key, headers, data)


def headers_of(type_name: str, key: str, extra: str = "") -> bytes:
    lines = f"ce-specversion: 1.0\r\nce-type: {type_name}\r\nce-source: /x\r\nce-id: {type_name}-{key}\r\n"
    return (lines + (f"ce-partitionkey: {key}\r\n" if key else "") + extra).encode()


@pytest.mark.parametrize(
    ("headers", "data", "code"),
    [
        (headers_of("durable.test.v1.Placed", "k"), b"\xff\xff\xff", "invalid_argument"),
        (headers_of("durable.test.v1.Placed", "k", "ce-datacontenttype: text/plain\r\n"), b"", "invalid_argument"),
        (headers_of("durable.test.v1.Placed", ""), b"", "invalid_argument"),
        (b"\xff\xfe: nothing\r\n", b"", "invalid_argument"),
        (b"", b"", "invalid_argument"),
        (headers_of("durable.test.v1.Placed", "k" * 600), b"", "invalid_argument"),
        (headers_of("durable.test.v1.Placed", "k").replace(b"1.0", b"7.0"), b"", "invalid_argument"),
        (b"x: " + b"y" * 20_000, b"", "invalid_argument"),
    ],
    ids=["bytes", "content type", "no key", "not ascii", "no headers", "long key", "version", "huge headers"],
)
async def test_bad_message_is_a_dead_letter_and_harms_nobody(tmp_path: Path, headers: bytes, data: bytes, code: str) -> None:
    async with system(tmp_path) as run:
        await run.broker.publish(outgoing(run, headers, data, "k"))
        await run.publish(("good", 1))
        await has_effects(run, 1)
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert (letter.state, letter.code, letter.headers, letter.data) == (LetterState.DEAD, code, headers, data)


async def test_unknown_event_is_skipped_and_unknown_command_kept(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await run.broker.publish(outgoing(run, headers_of("durable.test.v1.Later", "k"), b"", "k"))
        await until(lambda: run.mail.counts.skipped == 1, "skipped")
        commands = next(each for each in run.app.running["mail"].consumers if each.topic.endswith(".commands"))
        message = outgoing(run, headers_of("durable.test.v1.Payments.Refund", "k"), b"", "k")
        message.topic = "durable.test.v1.commands"
        await run.broker.publish(message)
        await until(lambda: commands.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert letter.code == "unimplemented"


async def test_sent_command_is_handled_once_per_key(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        orders = run.app.services[0]
        for _ in range(3):
            async with run.app.transaction(orders) as ctx:
                await ctx.send(Payments.charge, Charge(order="a", cents=500), key="order-a")
        async with run.app.transaction(orders) as ctx:
            await ctx.send(Payments.charge, Charge(order="a", cents=700), key="order-a-2")
        await has_effects(run, 2)
        await run.app.running["orders"].relay.flush()

        assert await run.effects() == [("a", 500), ("a", 700)]


async def test_expired_command_is_not_carried_out(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        run.log.stop()
        async with run.app.transaction(run.app.services[0]) as ctx:
            await ctx.send(Payments.charge, Charge(order="a", cents=1))
        await run.clock.advance(61)
        run.log.start()
        commands = next(each for each in run.app.running["mail"].consumers if each.topic.endswith(".commands"))

        async def expired() -> bool:
            await run.clock.advance(1)
            return commands.counts.expired == 1

        await until(expired, "expired")
        assert await run.effects() == []


async def test_handler_that_raises_leaves_nothing(tmp_path: Path) -> None:
    async def half(ctx: Context, event: Placed) -> None:
        await note(ctx, event)
        await ctx.publish(Noted(order=event.order, number=1))
        raise Error(Code.INVALID_ARGUMENT, "No.")

    async with system(tmp_path, half) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.dead == 1, "dead")

        assert await run.effects() == []
        assert await run.store.depth() == (0, 0.0)


async def test_interactive_handler_reads_what_it_wrote_and_runs_once(tmp_path: Path) -> None:
    runs: list[int] = []

    async def count(ctx: Context, event: Placed) -> None:
        ((number,),) = await ctx.tx.execute("select count(*) from effect")
        runs.append(number)
        await ctx.tx.execute("insert into effect (key, number) values (?, ?)", event.order, number)

    async with system(tmp_path, count) as run:
        run.faults.duplicates = 0.4
        await run.publish(*((f"k{number}", number) for number in range(10)))
        await has_effects(run, 10)
        await until(lambda: run.mail.counts.duplicates >= 2, "duplicates")

        assert sorted(number for _, number in await run.effects()) == list(range(10))
        assert len(runs) == 10


async def test_failed_interactive_handler_rolls_back(tmp_path: Path) -> None:
    async def half(ctx: Context, event: Placed) -> None:
        await ctx.tx.execute("insert into effect (key, number) values (?, 1)", event.order)
        if ctx.attempt == 1:
            raise ValueError("secret text")
        await ctx.tx.execute("insert into effect (key, number) values (?, 2)", event.order)

    async with system(tmp_path, half) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.retried == 1, "retried")
        await has_effects(run, 2, step=0.5)

        assert await run.effects() == [("a", 1), ("a", 2)]


async def test_foreign_errors_text_is_not_stored(tmp_path: Path) -> None:
    async def leak(_ctx: Context, _event: Placed) -> None:
        raise ValueError("secret text")

    async with system(tmp_path, leak, limits=Limits(inline=1, parked=())) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert "secret" not in letter.error
        assert "ValueError" in letter.error


async def test_handler_that_takes_too_long_is_cancelled_and_retried(tmp_path: Path) -> None:
    ended: list[str] = []

    async def slow(ctx: Context, event: Placed) -> None:
        if ctx.attempt > 1:
            await note(ctx, event)
            return
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event.order)

    async with system(tmp_path, slow, limits=Limits(timeout=4.0)) as run:
        await run.publish(("a", 1))
        await until(lambda: any(work and work.running for work in run.mail.workers.tasks.values()), "running")

        async def done() -> bool:
            await run.clock.advance(1)
            return len(await run.effects()) == 1

        await until(done, "effect")
        assert ended == ["a"]


async def test_at_least_once_handler_leaves_the_inbox_out(tmp_path: Path) -> None:
    seen: list[int] = []

    async def handler(_ctx: Context, event: Placed) -> None:
        seen.append(event.number)

    async with system(tmp_path, handler, once=False) as run:
        run.faults.duplicates = 0.4
        await run.publish(*(("a", number) for number in range(10)))
        await until(lambda: len(seen) > len(set(seen)) == 10, "one of them twice")

        assert set(seen) == set(range(10))
        assert run.mail.counts.duplicates == 0


async def test_backlog_holds_publishers_back(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        relay = run.app.running["orders"].relay
        run.log.stop()
        async with run.app.transaction(run.app.services[0]) as ctx:
            for number in range(5_000):
                await ctx.publish(Placed(order=f"k{number}", number=number))
        await until(lambda: relay.full, "full")
        pushed = asyncio.ensure_future(run.publish(("late", 1)))
        await run.clock.advance(0.1)
        assert not pushed.done()

        run.log.start()

        async def goes_on() -> bool:
            await run.clock.advance(0.5)
            return pushed.done()

        await until(goes_on, "went on")
        await pushed


async def test_no_variable_leaks_from_one_message_to_the_next(tmp_path: Path) -> None:
    from contextvars import ContextVar

    leaked: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="clean")

    async def handler(ctx: Context, event: Placed) -> None:
        leaked.append(variable.get())
        variable.set("dirty")
        await asyncio.sleep(0)
        assert variable.get() == "dirty"
        await note(ctx, event)

    async with system(tmp_path, handler) as run:
        await run.publish(*((f"k{number}", number) for number in range(40)))
        await has_effects(run, 40)

        assert set(leaked) == {"clean"}


async def test_calls_after_a_write_and_changes_in_queries_are_refused(tmp_path: Path) -> None:
    texts: list[str] = []

    async def charge(ctx: Context, request: Charge) -> Receipt:
        ctx.tx.record("insert into effect (key, number) values (?, 1)", request.order)
        with pytest.raises(Error, match="call first, or use send") as caught:
            await ctx.call(Payments.find, request)
        texts.append(caught.value.code.value)
        return Receipt(order=request.order)

    async def find(ctx: Context, request: Charge) -> Receipt:
        with pytest.raises(Error, match="Cannot publish in a query"):
            await ctx.publish(Placed(order="a", number=1))
        with pytest.raises(Error, match="Cannot record in a query"):
            ctx.tx.record("delete from effect")
        with pytest.raises(Error):
            await ctx.tx.execute("delete from effect")
        assert await ctx.tx.execute("select count(*) from effect") == [(1,)]
        return Receipt(order=request.order)

    async with system(tmp_path, charge=charge, find=find) as run, run.app.client() as client:
        await client.call(Payments.charge, Charge(order="a", cents=1))
        await client.call(Payments.find, Charge(order="a", cents=1))

    assert texts == ["failed_precondition"]


async def test_discarded_message_stays_away_when_the_broker_forgot_the_ack(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    async with system(tmp_path, failing(seen, {("bad", 1)}, Code.INVALID_ARGUMENT)) as run:
        run.faults.lost_acks = 1.0
        await run.publish(("bad", 1))
        await run.broker.publish(outgoing(run, b"\xff: unreadable\r\n", b"x", "k"))
        await until(lambda: run.mail.counts.dead == 2, "dead")
        for letter in await run.store.letters():
            assert await run.store.discard(letter.position, who="ann", why="test", at=run.clock.now())
        await run.clock.advance(2)
        log, clock, faults = run.log, run.clock, run.faults
        faults.lost_acks = 0.0

    fails: set[tuple[str, int]] = set()
    async with system(tmp_path, failing(seen, fails, Code.INVALID_ARGUMENT), log=log, clock=clock) as run:
        await run.publish(("bad", 2), ("good", 1))
        await has_effects(run, 2, step=0.1)

        assert await run.store.letters() == []
        assert sorted(await run.effects()) == [("bad", 2), ("good", 1)]


async def test_handler_that_meets_a_cancelled_future_is_retried_and_kills_no_worker(tmp_path: Path) -> None:
    async def handler(ctx: Context, event: Placed) -> None:
        if ctx.attempt < 3:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        await note(ctx, event)

    async with system(tmp_path, handler, mail={"breaker": None}) as run:
        await run.publish(*((f"k{number}", number) for number in range(40)))
        await has_effects(run, 40, step=0.1)

        assert not any(task.done() for task in run.mail.workers.tasks)


async def test_repeat_met_inside_a_task_group_is_a_repeat(tmp_path: Path) -> None:
    async def handler(ctx: Context, event: Placed) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.tx.execute("insert into effect (key, number) values (?, ?)", event.order, event.number))

    async with system(tmp_path, handler) as run:
        run.faults.duplicates = 0.4
        await run.publish(*((f"k{number}", number) for number in range(20)))
        await has_effects(run, 20)
        await until(lambda: run.mail.counts.duplicates >= 2, "duplicates")

        assert len(await run.effects()) == 20
        assert run.mail.counts.retried == 0


async def test_order_key_that_no_receiver_takes_is_refused_at_the_sender(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        with pytest.raises(Error, match="order key of 513 characters") as caught:
            await run.publish(("k" * 513, 1))

        assert caught.value.code is Code.INVALID_ARGUMENT
        await run.publish(("k" * 512, 2))
        await has_effects(run, 1)


async def test_repeated_call_that_publishes_something_else_loses_nothing(tmp_path: Path) -> None:
    async def charge(ctx: Context, request: Charge) -> Receipt:
        await ctx.publish(Placed(order=request.order, number=request.cents))
        return Receipt(order=request.order)

    async with system(tmp_path, charge=charge) as run, run.app.client() as client:
        await client.call(Payments.charge, Charge(order="a", cents=1), key="k1")
        await client.call(Payments.charge, Charge(order="b", cents=2), key="k1")
        await has_effects(run, 2)

        assert sorted(await run.effects()) == [("a", 1), ("b", 2)]
