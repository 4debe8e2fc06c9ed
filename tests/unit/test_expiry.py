"""Past its expiry a message is not handled: nowhere on its way, before it is decoded, and never without a trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Error, Limits, envelope as envelopes
from linkspan.ports import LetterState
from linkspan.testing.clock import START
from linkspan.when import SKEW
from tests.unit.durable import Charge, Noted, Payments, Placed, System, note, system, until
from tests.unit.test_retries import moved as step_by_step
from tests.unit.test_scheduled import moved, within

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


def expiries(run: System) -> list[float]:
    """Return the expiry of each message with the broker, 0 where it has none, as seconds after the start."""
    records = [record for topic in run.log.topics.values() for record in topic.records]
    found = [envelopes.read(record.headers).expires for record in records]
    return [round(envelopes.moment(text) - START, 3) if text else 0.0 for text in found]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 60.0),
        ({"expires": 5}, 5.0),
        ({"expires": timedelta(seconds=7)}, 7.0),
        ({"expires": datetime.fromtimestamp(START + 9, UTC)}, 9.0),
        ({"expires": 3_600.0}, 60.0),
        ({"after": 100.0}, 160.0),
        ({"after": 100.0, "expires": 5.0}, 105.0),
        ({"at": datetime.fromtimestamp(START + 50, UTC), "expires": datetime.fromtimestamp(START + 55, UTC)}, 55.0),
    ],
    ids=["contract", "seconds", "span", "moment", "the earlier counts", "from when it leaves", "its own from then", "two moments"],
)
async def test_a_command_expires_by_its_sender_or_its_contract(tmp_path: Path, options: dict[str, Any], seconds: float) -> None:
    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.send(Payments.charge, Charge(order="a", cents=5), **options))
        await moved(run, 100.1)

        assert expiries(run) == [seconds]


async def test_an_event_expires_where_its_publisher_says_so(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1)))
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=2), expires=30))
        async with run.app.client(owns="*") as client:
            await client.publish(Noted(order="a", number=3), expires=timedelta(minutes=1))
        await moved(run)

        assert sorted(expiries(run)) == [0.0, 30.0, 60.0]


@pytest.mark.parametrize(("late", "handled"), [(0.0, True), (SKEW - 0.01, True), (SKEW, False)], ids=["on time", "clocks differ", "over"])
async def test_an_expired_message_is_not_handled(tmp_path: Path, late: float, handled: bool) -> None:
    async with system(tmp_path) as run:
        run.log.stop()
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), expires=10))
        await run.clock.advance(10.0 + late - (run.clock.now() - START))
        run.log.start()
        moment = run.clock.now()
        await until(lambda: run.mail.counts.handled + run.mail.counts.expired == 1 or _turn(run, moment), "it had its end")

        assert (run.mail.counts.handled, run.mail.counts.expired) == (int(handled), int(not handled))
        assert run.mail.counts.dead == 0


def _turn(run: System, moment: float) -> bool:
    """Let the relay's pause end without moving the time of day."""
    for relay in run.app._relays.values():
        if relay._pause is not None:
            relay._pause.cancel()
            relay._resume()
    assert run.clock.now() == moment
    return False


async def test_an_expired_message_is_not_decoded(tmp_path: Path) -> None:
    """Its content is no message at all, and yet there is no dead letter."""
    async with system(tmp_path) as run:
        headers = envelopes.render(
            envelopes.prefix("durable.test.v1.Placed", "/orders"),
            envelopes.Envelope("1", "/orders", "durable.test.v1.Placed", "a", time="2023-11-14T22:13:20Z", expires="2023-11-14T22:13:20Z"),
        )
        await run.clock.advance(2.0)
        from linkspan.ports import Outgoing

        await run.broker.publish(Outgoing("durable.test.v1.events", "Placed", 1, "1", "a", headers, b"\xff\xff\xff"))
        await until(lambda: run.mail.counts.expired == 1, "it expired")

        assert (run.mail.counts.dead, await run.store.letters()) == (0, [])


async def test_an_expired_row_is_sent_all_the_same_so_that_no_number_is_missing(tmp_path: Path) -> None:
    """The relay is down past the expiry of the second of three; the third keeps its number, and is handled."""
    async with system(tmp_path) as run:
        run.log.stop()
        for number, options in ((1, {}), (2, {"expires": 5}), (3, {})):
            await within(run, lambda ctx, number=number, options=options: ctx.publish(Placed(order="a", number=number), **options))
        await run.clock.advance(10.0)
        run.log.start()
        await run.clock.advance(10.0)
        await until(lambda: run.mail.counts.handled == 2, "the others are handled")
        await moved(run)

        records = run.log.topics["durable.test.v1.events"].records
        assert [envelopes.read(record.headers).sequence for record in records] == [1, 2, 3]
        assert await run.effects() == [("a", 1), ("a", 3)]
        assert run.mail.counts.expired == 1


async def test_a_parked_message_past_its_expiry_ends_audited_and_frees_its_key(tmp_path: Path) -> None:
    tried: list[int] = []

    async def fails_at_first(ctx: Context, event: Placed) -> None:
        tried.append(event.number)
        if event.number == 1:
            raise Error(Code.UNAVAILABLE, "Not now.")
        await note(ctx, event)

    async with system(tmp_path, fails_at_first, limits=Limits(inline=1, parked=(30.0,))) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), expires=10))
        await until(lambda: run.mail.counts.parked == 1, "it is parked")
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=2)))
        await moved(run, 29.0)
        waiting = [letter.state for letter in await run.store.letters()]
        await step_by_step(run, 5.0, step=1.0)
        await until(lambda: run.mail.counts.handled == 1, "the one behind it is handled")

        assert waiting == [LetterState.PARKED, LetterState.WAITING]
        assert (tried, run.mail.counts.expired, await run.effects()) == ([1, 2], 1, [("a", 2)])
        assert await run.store.letters() == []
        audit = await run.store.read("select action, who, why, key, type from linkspan_audit")
        assert audit == [("expire", "mail", "past its expirytime", "a", "durable.test.v1.Placed")]


async def test_a_dead_letter_stays_for_people_and_ends_when_it_is_redriven_too_late(tmp_path: Path) -> None:
    async def refuses(ctx: Context, event: Placed) -> None:
        raise Error.refused("Never.")

    async with system(tmp_path, refuses) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1), expires=10))
        await until(lambda: run.mail.counts.dead == 1, "it is dead")
        await moved(run, 60.0)
        (letter,) = await run.store.letters()
        await run.store.redrive([letter.position], who="ann", why="mended", at=run.clock.now())
        await run.clock.advance(2.0)
        await until(lambda: run.mail.counts.expired == 1, "it expired")
        await moved(run)

        assert await run.store.letters() == []
        assert [row[0] for row in await run.store.read("select action from linkspan_audit order by position")] == ["redrive", "expire"]
