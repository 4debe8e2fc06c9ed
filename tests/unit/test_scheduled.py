"""Messages that leave later: with the transaction, at their time, in order, once; taken back in time or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Code, Error, Limits
from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.stores.sqlite_file import QUERIES
from linkspan.testing.clock import START, fake_runtime, settle
from tests.unit.durable import Charge, Noted, Payments, Placed, System, note, system, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from linkspan import Context

Act = "Callable[[Context], Awaitable[Any]]"


async def within(run: System, act: Callable[[Context], Awaitable[Any]]) -> Any:
    """Do something in a transaction of `orders`, and return what it returns."""
    orders = next(each for each in run.app.services if each.name == "orders")
    async with run.app.transaction(orders) as ctx:
        return await act(ctx)


async def moved(run: System, seconds: float = 0.0) -> None:
    """Move the clock, and wait until what became due has left the timetable and the outbox."""
    await run.clock.advance(seconds)
    await until(lambda: not any(timetable.busy for timetable in run.app.timetables), "the timetable is at rest")
    await until(lambda: not any(relay.waiting for relay in run.app._relays.values()), "the outbox is empty")
    await until(lambda: not any(consumer.in_hand for each in run.app.running.values() for consumer in each.consumers), "all is handled")
    await settle()


async def test_a_delayed_event_leaves_when_it_is_due(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), after=60.0))
        await moved(run, 59.0)
        before = await run.effects()
        await moved(run, 1.1)

        assert (before, await run.effects()) == ([], [("a", 1)])


@pytest.mark.parametrize(
    "options",
    [{"after": timedelta(minutes=1)}, {"at": datetime.fromtimestamp(START + 60, UTC)}, {"after": 60}],
    ids=["span", "moment", "whole seconds"],
)
async def test_a_delayed_command_is_given_its_time_in_any_form(tmp_path: Path, options: dict[str, Any]) -> None:
    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.send(Payments.charge, Charge(order="a", cents=5), **options))
        await moved(run, 59.0)
        before = await run.effects()
        await moved(run, 1.1)

        assert (before, await run.effects()) == ([], [("a", 5)])


async def test_a_moment_in_the_past_leaves_now(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), at=datetime(2020, 1, 1, tzinfo=UTC)))
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=2), after=0))
        await moved(run)

        assert await run.effects() == [("a", 1), ("a", 2)]


async def test_one_timer_is_set_for_the_earliest(tmp_path: Path) -> None:
    """Between two due times the store is asked every half minute, not more often."""
    async with system(tmp_path) as run:
        store = run.app.running["orders"].store
        assert store is not None
        asked: list[float] = []
        real = store.next_due

        async def counted() -> float | None:
            asked.append(run.clock.now() - START)
            return await real()

        store.next_due = counted  # type: ignore[method-assign]  # the store itself, watched
        for wait in (7_200.0, 100.0):
            await within(run, lambda ctx, wait=wait: ctx.publish(Placed(order="a", number=int(wait)), after=wait))
        for _ in range(12):
            await moved(run, 10.0)

        assert await run.effects() == [("a", 100)]
        assert len(asked) <= 8  # four sweeps, and two looks at 100 s: one that finds it and one that finds no more


async def test_due_messages_of_a_key_leave_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Also when they were due while nothing ran, and were sent in another order."""
    log = MemoryLog()
    async with system(tmp_path, log=log) as run:
        clock = run.clock
        for number in (3, 1, 2):
            await within(run, lambda ctx, number=number: ctx.publish(Placed(order="a", number=number), after=10.0 * number))
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=0)))
        await moved(run)
    await clock.advance(3_600.0)
    async with system(tmp_path, log=log, clock=clock) as run:
        await moved(run)

        assert await run.effects() == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]


async def test_what_is_rolled_back_is_not_scheduled(tmp_path: Path) -> None:
    async def fails(ctx: Context) -> None:
        await ctx.publish(Placed(order="a", number=1), after=10.0)
        raise LookupError("no such customer")

    async with system(tmp_path) as run:
        with pytest.raises(LookupError):
            await within(run, fails)
        await moved(run, 20.0)

        assert await run.effects() == []


async def test_a_cancelled_message_does_not_leave(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        id_ = await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), after=10.0))
        found = [await within(run, lambda ctx: ctx.cancel(id_)) for _ in range(2)]
        await moved(run, 20.0)

        assert (found, await run.effects()) == ([True, False], [])


async def test_a_command_is_cancelled_by_its_key(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        for key in ("1", "2"):
            request = Charge(order=key, cents=5)
            await within(run, lambda ctx, request=request, key=key: ctx.send(Payments.charge, request, key=key, after=10.0))
        found = await within(run, lambda ctx: ctx.cancel(Payments.charge, key="1"))
        await moved(run, 20.0)

        assert (found, await run.effects()) == (True, [("2", 5)])


async def test_a_cancel_after_it_left_says_so(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        id_ = await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), after=10.0))
        await moved(run, 10.1)

        assert await within(run, lambda ctx: ctx.cancel(id_)) is False
        assert await run.effects() == [("a", 1)]


async def test_a_cancel_that_is_rolled_back_cancels_nothing(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        id_ = await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), after=10.0))

        async def fails(ctx: Context) -> None:
            assert await ctx.cancel(id_)
            raise LookupError("thought better of it")

        with pytest.raises(LookupError):
            await within(run, fails)
        await moved(run, 10.1)

        assert await run.effects() == [("a", 1)]


async def test_the_same_key_is_scheduled_once_and_the_first_time_stands(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        ids = [
            await within(run, lambda ctx, wait=wait: ctx.send(Payments.charge, Charge(order="a", cents=5), key="k", after=wait))
            for wait in (10.0, 20.0)
        ]
        await moved(run, 10.1)
        first = await run.effects()
        await moved(run, 20.0)

        assert (len(set(ids)), first, await run.effects()) == (1, [("a", 5)], [("a", 5)])


async def test_cancelled_and_sent_again_with_the_same_key_has_the_new_time(tmp_path: Path) -> None:
    async def again(ctx: Context) -> None:
        assert await ctx.cancel(Payments.charge, key="k")
        await ctx.send(Payments.charge, Charge(order="a", cents=5), key="k", after=60.0)

    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.send(Payments.charge, Charge(order="a", cents=5), key="k", after=10.0))
        await within(run, again)
        await moved(run, 30.0)
        before = await run.effects()
        await moved(run, 31.0)

        assert (before, await run.effects()) == ([], [("a", 5)])


async def test_a_handler_schedules_with_its_effect(tmp_path: Path) -> None:
    """The consumer's own commit tells the timetable, and a retried handler schedules once."""

    async def remind(ctx: Context, event: Placed) -> None:
        await note(ctx, event)
        await ctx.send(Payments.charge, Charge(order=event.order, cents=99), after=5.0)
        if ctx.attempt < 2:
            raise Error(Code.UNAVAILABLE, "Not yet: try again.")

    async with system(tmp_path, remind) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.retried == 1, "it was tried once")
        await run.clock.advance(1.0)
        await until(lambda: run.mail.counts.handled == 1, "it was handled")
        await moved(run, 5.1)

        assert await run.effects() == [("a", 1), ("a", 99)]


async def test_a_store_that_fails_is_asked_again(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        store = run.app.running["orders"].store
        assert store is not None
        real, failures = store.next_due, iter([Error(Code.UNAVAILABLE, "Locked.")])

        async def failing() -> float | None:
            for error in failures:
                raise error
            return await real()

        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), after=10.0))
        store.next_due = failing  # type: ignore[method-assign]  # the store itself, made to fail once
        await moved(run, 10.1)
        before = await run.effects()
        await moved(run, 1.1)

        assert (before, await run.effects()) == ([], [("a", 1)])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"after": 5, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "both 'after' and 'at'"),
        ({"at": datetime(2030, 1, 1)}, "'at' has no time zone"),  # noqa: DTZ001 - the mistake under test
        ({"at": 5.0}, "'at' is a float"),
        ({"after": -1}, "'after' is -1 seconds"),
        ({"after": float("nan")}, "'after' is nan seconds"),
        ({"after": float("inf")}, "'after' is inf seconds"),
        ({"after": True}, "'after' is a bool"),
        ({"after": "5"}, "'after' is a str"),
        ({"at": datetime(9000, 1, 1, tzinfo=UTC)}, "more than 100 years"),
        ({"after": 60, "expires": datetime.fromtimestamp(START + 60, UTC)}, "expire before it leaves"),
        ({"expires": 0}, "expire before it leaves"),
        ({"expires": datetime(2030, 1, 1)}, "'expires' has no time zone"),  # noqa: DTZ001 - the mistake under test
    ],
)
async def test_wrong_times_are_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    async with system(tmp_path) as run:
        for act in (
            lambda ctx: ctx.publish(Placed(order="a", number=1), **options),
            lambda ctx: ctx.send(Payments.charge, Charge(order="a", cents=5), **options),
        ):
            with pytest.raises(Error, match=text) as caught:
                await within(run, act)

            assert caught.value.code is Code.INVALID_ARGUMENT


async def test_cancel_wants_an_id_or_a_command_with_its_key(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        for arguments in (("id",), {"key": "k"}), ((Payments.charge,), {}):
            with pytest.raises(Error, match="one of the two"):
                await within(run, lambda ctx, arguments=arguments: ctx.cancel(*arguments[0], **arguments[1]))


async def test_a_query_can_neither_schedule_nor_cancel(tmp_path: Path) -> None:
    async def find(ctx: Context, request: Charge) -> Any:
        if request.cents:
            await ctx.cancel("id")
        await ctx.publish(Noted(order="a", number=1), after=5.0)

    async with system(tmp_path, find=find) as run, run.app.client() as client:
        for cents, verb in ((0, "publish"), (1, "cancel")):
            with pytest.raises(Error, match=f"Cannot {verb} in a query"):
                await client.call(Payments.find, Charge(order="a", cents=cents))


async def test_a_client_cannot_schedule(tmp_path: Path) -> None:
    runtime, _ = fake_runtime()
    broker = MemoryBroker(runtime=runtime, faults=Faults(), log=MemoryLog())
    await broker.open()
    async with Client(broker, runtime=runtime, owns="*") as client:
        for options in ({"after": 5.0}, {"at": datetime(2030, 1, 1, tzinfo=UTC)}):
            with pytest.raises(Error, match="A client has no store") as caught:
                await client.send(Payments.charge, Charge(order="a", cents=5), **options)  # type: ignore[arg-type]  # one of the two
            assert caught.value.code is Code.FAILED_PRECONDITION
            with pytest.raises(Error, match="A client has no store"):
                await client.publish(Placed(order="a", number=1), **options)  # type: ignore[arg-type]  # as above
    await broker.aclose()


async def test_a_backlog_of_scheduled_messages_is_moved_in_pages(tmp_path: Path) -> None:
    async def many(ctx: Context) -> None:
        for number in range(1_200):
            await ctx.publish(Placed(order=f"k{number % 7}", number=number), after=10.0)

    async with system(tmp_path, limits=Limits()) as run:
        await within(run, many)
        await moved(run, 10.1)

        found = await run.effects()
        assert len(found) == 1_200
        by_key: dict[str, list[int]] = {}
        for key, number in found:
            by_key.setdefault(key, []).append(number)
        assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_many_scheduled_messages_are_never_read_one_by_one(tmp_path: Path) -> None:
    """What is asked at each move finds its rows by an index; what is written at each event has nothing to do with the table."""
    async with system(tmp_path) as run:
        store = run.app.running["orders"].store
        assert store is not None
        asked = {name: sql for name, sql in QUERIES.items() if name.startswith("scheduled_") and name != "scheduled_add"}
        plans = {name: await store.read(f"explain query plan {sql}", (0,) * sql.count("?")) for name, sql in asked.items()}

        assert len(plans) == 6
        for name, plan in plans.items():
            steps = [str(row[-1]) for row in plan]
            assert any("SEARCH" in step and ("INDEX" in step or "PRIMARY KEY" in step) for step in steps), (name, steps)
            assert not any(step.startswith("SCAN linkspan_scheduled") for step in steps), (name, steps)
        assert not any("linkspan_scheduled" in sql for name, sql in QUERIES.items() if not name.startswith("scheduled_"))
