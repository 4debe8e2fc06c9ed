"""A topic in batches: single events to the inbox, the order of their keys, retries and dead letters, whatever becomes of a batch."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Batches, Code, Error, Limits, Service, SetupError
from linkspan.batch import BATCH, joined, pack, singles
from linkspan.brokers.memory import MemoryLog
from linkspan.envelope import Envelope, lane_of, prefix, read, render
from linkspan.incoming.pace import PREFETCH
from linkspan.incoming.parts import Part, Share
from linkspan.outgoing.sender import Origin, Sender
from linkspan.ports import LetterState, Outgoing
from linkspan.testing.clock import FakeClock
from linkspan.zstd import Packer, train
from tests.unit.durable import PLACED_TOPIC, Placed, System, contract, note, system, until
from tests.unit.test_batch_format import content, packed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from linkspan import Context
    from linkspan.brokers.memory_log import Record

LARGE = "refused"


@asynccontextmanager
async def batched(folder: Path, handler: Any = note, *, batches: Batches | None = None, **more: Any) -> AsyncIterator[System]:
    async with system(folder, handler, batches=batches or Batches(), **more) as run:
        yield run


async def together(run: System, *events: tuple[str, int], text: str = "") -> None:
    """Publish events in one transaction."""
    async with run.app.transaction(run.app.services[0]) as ctx:
        for order, number in events:
            await ctx.publish(Placed(order=order, number=number, note=text))


async def has_effects(run: System, count: int, step: float = 0.0) -> None:
    async def there() -> bool:
        if step:
            await run.clock.advance(step)
        return len(await run.effects()) >= count

    await until(there, f"{count} effects")


def stored(run: System) -> list[Record]:
    return run.log.topics[PLACED_TOPIC].records


def kinds(run: System) -> list[int]:
    """Return how many events each stored message holds."""
    return [len(singles(each.data, contract.dictionaries)) if BATCH.encode() in each.headers else 1 for each in stored(run)]


def made(run: System, *events: tuple[str, int]) -> list[Outgoing]:
    """Make messages as the service does, without publishing them."""
    sender, ids = Sender("orders", run.runtime), run.runtime.ids
    return [sender.event(Origin(ids.new(), ""), Placed(order=order, number=number)) for order, number in events]


def in_order(effects: Sequence[tuple[Any, ...]], key: str) -> bool:
    numbers = [number for name, number in effects if name == key]
    return numbers == sorted(numbers)


# --- there and back -------------------------------------------------------------------------------


async def test_events_of_a_commit_travel_together_and_have_their_effects_once_and_in_order(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        run.faults.duplicates = 0.3
        for start in range(0, 600, 200):
            await together(run, *((f"k{number % 40}", number) for number in range(start, start + 200)))
        await has_effects(run, 600)
        await until(lambda: run.mail.counts.duplicates > 0, "duplicates seen")

        effects = await run.effects()
        assert len(effects) == 600
        assert all(in_order(effects, f"k{key}") for key in range(40))
        assert sum(kinds(run)) == 600
        assert len(stored(run)) < 200


async def test_an_event_that_comes_alone_travels_as_it_is_and_waits_for_nothing(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        await run.publish(("a", 1))
        await has_effects(run, 1)

        assert kinds(run) == [1]
        assert b"durable.test.v1.Placed" in stored(run)[0].headers


async def test_a_batch_holds_one_lane_only(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        await together(run, *((f"k{number}", number) for number in range(300)))
        await has_effects(run, 300)

        for record in stored(run):
            if BATCH.encode() in record.headers:
                assert len({lane_of(read(single.headers).key) for single in singles(record.data)}) == 1


async def test_mixed_batches_hold_all_lanes_in_the_order_of_commits(tmp_path: Path) -> None:
    async with batched(tmp_path, batches=Batches(mixed=True)) as run:
        await together(run, *((f"k{number}", number) for number in range(300)))
        await has_effects(run, 300)

        assert kinds(run) == [300]
        assert await run.effects("select number from effect order by position") == [(number,) for number in range(300)]


async def test_mixed_messages_all_travel_in_one_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes: list[int] = []

    async with batched(tmp_path, batches=Batches(mixed=True)) as run:
        publish = run.broker.publish

        def noting(message: Outgoing) -> asyncio.Future[None]:
            lanes.append(message.lane)
            return publish(message)

        monkeypatch.setattr(run.broker, "publish", noting)
        await run.publish(("a", 1))
        await has_effects(run, 1)
        await together(run, ("b", 2), ("c", 3))
        await has_effects(run, 3)
        await until(lambda: run.app.running["orders"].relay.waiting == 0, "all are stored")

        assert (lanes, kinds(run)) == ([0, 0], [1, 2])
        assert run.app.running["orders"].relay.waiting == 0


async def test_settings_bound_a_batch(tmp_path: Path) -> None:
    async with batched(tmp_path, batches=Batches(events=7, size=100_000)) as run:
        await together(run, *(("k", number) for number in range(70)))
        await has_effects(run, 70)
        assert max(kinds(run)) == 7

        before = len(stored(run))
        await together(run, *(("k", number) for number in range(70, 74)), text="x" * 60_000)
        await has_effects(run, 74)
        assert kinds(run)[before:] == [1, 1, 1, 1]


async def test_other_topics_travel_singly(tmp_path: Path) -> None:
    async with batched(tmp_path, batches=Batches(topics=["other.v1.events"])) as run:
        await together(run, *(("k", number) for number in range(20)))
        await has_effects(run, 20)

        assert kinds(run) == [1] * 20


async def test_lost_confirmations_and_publishes_neither_lose_nor_double_nor_reorder(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        run.faults.lost_confirmations = 0.4
        run.faults.lost_publishes = 0.3
        for start in range(0, 200, 20):
            await together(run, *((f"k{number % 5}", number) for number in range(start, start + 20)))
        await has_effects(run, 200, step=0.5)

        effects = await run.effects()
        assert len(effects) == 200
        assert all(in_order(effects, f"k{key}") for key in range(5))


async def test_a_batch_in_doubt_goes_again_as_it_was(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        run.log.window = 0.0  # a broker that has forgotten which ids it has seen
        run.faults.lost_confirmations = 1.0
        await together(run, *(("k", number) for number in range(10)))
        await until(lambda: len(stored(run)) == 1, "stored once")
        await together(run, *(("k", number) for number in range(10, 15)))
        run.faults.lost_confirmations = 0.0
        await run.clock.advance(5)
        await has_effects(run, 15)

        assert kinds(run) == [10, 10, 5]
        assert stored(run)[0].data == stored(run)[1].data
        assert await run.effects("select number from effect order by position") == [(number,) for number in range(15)]


async def test_a_restart_sends_what_was_not_confirmed_again_and_nothing_is_doubled(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        run.faults.lost_confirmations = 1.0
        await together(run, *((f"k{number % 3}", number) for number in range(30)))
        await has_effects(run, 30)
        log, clock = run.log, run.clock
        relay = run.app.running["orders"].relay
        relay._closed = True  # it ends without having heard from the broker
        relay._empty.set()

    log.window = 0.0
    async with batched(tmp_path, log=log, clock=clock) as run:
        await together(run, ("k0", 99))
        await has_effects(run, 31)
        await until(lambda: run.mail.counts.duplicates == 30, "all came again")

        assert len(await run.effects()) == 31


async def test_a_broker_that_takes_less_gets_smaller_batches(tmp_path: Path) -> None:
    async with batched(tmp_path, log=MemoryLog(max_payload=1_500)) as run:
        noise = "".join(chr(33 + run.runtime.random.randrange(90)) for _ in range(60))
        async with run.app.transaction(run.app.services[0]) as ctx:
            for number in range(100):
                text = "".join(run.runtime.random.sample(noise, 60))
                await ctx.publish(Placed(order="k", number=number, note=text))
        await has_effects(run, 100)

        assert max(kinds(run)) > 1
        assert await run.effects("select number from effect order by position") == [(number,) for number in range(100)]


async def test_a_message_that_the_broker_will_not_have_holds_its_key_only(tmp_path: Path) -> None:
    log = MemoryLog(max_payload=5_000)
    async with batched(tmp_path, log=log) as run:
        large = "".join(chr(33 + run.runtime.random.randrange(90)) for _ in range(6_000))
        async with run.app.transaction(run.app.services[0]) as ctx:
            await ctx.publish(Placed(order="k", number=0, note=large))
            for number in range(1, 5):
                await ctx.publish(Placed(order="k", number=number))
            for key in range(20):
                await ctx.publish(Placed(order=f"other{key}", number=0))
        await has_effects(run, 20)
        await together(run, ("k", 5))
        assert await run.effects("select count(*) from effect where key = 'k'") == [(0,)]
        assert run.app.running["orders"].relay.waiting == 6

        log.max_payload = 100_000
        await run.clock.advance(31)
        await has_effects(run, 26)
        assert await run.effects("select number from effect where key = 'k' order by position") == [(number,) for number in range(6)]


# --- single events --------------------------------------------------------------------------------


async def test_one_event_of_a_batch_fails_alone(tmp_path: Path) -> None:
    fails = {2: Code.INVALID_ARGUMENT, 3: Code.UNAVAILABLE}

    async def handler(ctx: Context, event: Placed) -> None:
        if event.number in fails:
            raise Error(fails[event.number], "No.")
        await note(ctx, event)

    async with batched(tmp_path, handler, limits=Limits(inline=1)) as run:
        keys = same_lane(5)
        await together(run, *((keys[number], number) for number in range(5)), (keys[2], 12), (keys[3], 13))
        await has_effects(run, 3)

        async def held() -> bool:
            return len(await run.store.letters()) == 4

        await until(held, "four letters")
        assert kinds(run) == [7]
        letters = {(letter.key, letter.state) for letter in await run.store.letters()}
        assert letters == {
            (keys[2], LetterState.DEAD),
            (keys[2], LetterState.WAITING),
            (keys[3], LetterState.PARKED),
            (keys[3], LetterState.WAITING),
        }
        (dead,) = await run.store.letters(states=[LetterState.DEAD])
        assert Placed.from_binary(dead.data).number == 2
        assert read(dead.headers).id == dead.id
        await until(lambda: run.log.topics[PLACED_TOPIC].groups["mail"].floor == 1, "the batch is acknowledged")

        fails.clear()
        await run.store.redrive([dead.position], who="ann", why="mended", at=run.clock.now())
        await has_effects(run, 7, step=0.5)
        assert in_order(await run.effects(), keys[2])
        assert in_order(await run.effects(), keys[3])


def same_lane(count: int) -> list[str]:
    """Find keys whose events share a batch."""
    return [key for key in map(str, range(10_000)) if lane_of(key) == 5][:count]


async def test_a_batch_is_acknowledged_when_its_last_event_is_done(tmp_path: Path) -> None:
    going = asyncio.Event()

    async def handler(ctx: Context, event: Placed) -> None:
        if event.number == 1:
            await going.wait()
        await note(ctx, event)

    async with batched(tmp_path, handler) as run:
        group = run.log.topics[PLACED_TOPIC].groups["mail"]
        keys = same_lane(3)
        await together(run, (keys[0], 0), (keys[1], 1), (keys[2], 2))
        await has_effects(run, 2)
        assert group.floor == 0

        going.set()
        await until(lambda: group.floor == 1, "acknowledged")


async def test_a_batch_that_comes_again_does_only_what_was_not_done(tmp_path: Path) -> None:
    going = asyncio.Event()
    runs: list[int] = []

    async def handler(ctx: Context, event: Placed) -> None:
        runs.append(event.number)
        if event.number == 1:
            await going.wait()
        await note(ctx, event)

    async with batched(tmp_path, handler) as run:
        keys = same_lane(3)
        await together(run, (keys[0], 0), (keys[1], 1), (keys[2], 2))
        await has_effects(run, 2)
        run.log.restart()
        going.set()
        await until(lambda: run.mail.counts.duplicates == 3, "all three came again")

        assert len(await run.effects()) == 3


async def test_beats_of_a_batch_are_one() -> None:
    clock, delivery = FakeClock(), Sensor()
    share = Share(delivery, 3, clock)
    parts = [Part("t", b"", b"", share) for _ in range(3)]

    for _ in range(2):
        for part in parts:
            part.beat()
        await clock.advance(10)
    assert delivery.said == ["beat", "beat"]

    for part in (*parts, *parts):
        part.ack()
        part.beat()
    assert delivery.said == ["beat", "beat", "ack"]


def test_what_is_given_back_brings_the_whole_batch_again() -> None:
    delivery = Sensor()
    share = Share(delivery, 3, FakeClock())
    one, two, three = (Part("t", b"", b"", share) for _ in range(3))
    one.nack(3.0)
    two.nack(7.0)
    assert (one.attempt, delivery.said) == (4, [])
    three.ack()

    assert delivery.said == ["nack 7.0"]


class Sensor:
    """A delivery that notes what it is told."""

    topic, headers, data, attempt = "t", b"", b"", 4

    def __init__(self) -> None:
        self.said: list[str] = []

    def ack(self) -> None:
        self.said.append("ack")

    def nack(self, delay: float = 0.0) -> None:
        self.said.append(f"nack {delay}")

    def beat(self) -> None:
        self.said.append("beat")


async def test_a_flood_of_batches_waits_packed_and_keeps_its_order(tmp_path: Path) -> None:
    going = asyncio.Event()
    most = 0

    async def handler(ctx: Context, event: Placed) -> None:
        nonlocal most
        most = max(most, len(run.mail.in_hand))
        await going.wait()
        await note(ctx, event)

    async with batched(tmp_path, handler, limits=Limits(timeout=1e6)) as run:
        for start in range(0, 4_000, 1_000):
            messages = made(run, *((f"k{number % 40}", number) for number in range(start, start + 1_000)))
            await run.broker.publish(pack(messages, Packer(), 0.0))
        await run.broker.publish(made(run, ("k0", 4_000))[0])
        await until(lambda: len(run.mail._packed) == 3, "two batches and a single one wait")
        await run.clock.advance(100)
        assert len(run.mail._packed) == 3  # kept by beats: nothing came again
        going.set()
        await until(lambda: run.mail.counts.handled == 4_001, "all are handled")

        effects = await run.effects()
        assert most <= PREFETCH
        assert len(effects) == 4_001
        assert all(in_order(effects, f"k{key}") for key in range(40))


# --- what is no good batch ------------------------------------------------------------------------


def raw(data: bytes, *, version: str = "linkspan.batch.v1") -> Outgoing:
    headers = render(prefix(version, "/orders", BATCH), Envelope("b1", "/orders", version))
    return Outgoing(PLACED_TOPIC, "batch", 0, "b1", "", headers, data)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (raw(packed(b"\0" * (8 << 20))), "invalid_argument", "more than 1048576 bytes"),
        (raw(packed(content())[:-3]), "invalid_argument", "cut off"),
        (raw(packed(content(which=(9,)))), "invalid_argument", "do not fit"),
        (raw(packed(content(version=9)), version="linkspan.batch.v9"), "invalid_argument", "newer Linkspan"),
        (raw(b"garbage"), "invalid_argument", "no zstd frame"),
    ],
    ids=["bomb", "cut off", "wrong counts", "unknown version", "garbage"],
)
async def test_a_bad_batch_is_a_dead_letter_and_harms_nobody(tmp_path: Path, message: Outgoing, code: str, words: str) -> None:
    async with batched(tmp_path) as run:
        await run.broker.publish(message)
        await run.publish(("good", 1))
        await has_effects(run, 1)
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert (letter.state, letter.code, letter.id, letter.data) == (LetterState.DEAD, code, "b1", message.data)
        assert words in letter.error


async def test_a_batch_inside_a_batch_is_a_dead_letter_of_its_own(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        inner = pack(made(run, ("a", 1), ("a", 2)), Packer(), 0.0)
        await run.broker.publish(pack([*made(run, ("good", 1)), inner, *made(run, ("good", 2))], Packer(), 0.0))
        await has_effects(run, 2)
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert letter.id == inner.id
        assert "another batch" in letter.error


async def test_an_unreadable_event_inside_a_batch_is_a_dead_letter_of_its_own(tmp_path: Path) -> None:
    async with batched(tmp_path) as run:
        bad = Outgoing(PLACED_TOPIC, "Placed", 0, "x", "k", b"no: headers\r\n", b"x")
        await run.broker.publish(pack([*made(run, ("good", 1)), bad, *made(run, ("good", 2))], Packer(), 0.0))
        await has_effects(run, 2)
        await until(lambda: run.mail.counts.dead == 1, "dead")

        (letter,) = await run.store.letters()
        assert (letter.headers, letter.data) == (b"no: headers\r\n", b"x")


async def test_a_batch_whose_dictionary_is_missing_is_redriven_as_single_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = {2}

    async def handler(ctx: Context, event: Placed) -> None:
        if event.number in fails:
            raise Error(Code.INVALID_ARGUMENT, "No.")
        await note(ctx, event)

    async with batched(tmp_path, handler) as run:
        dictionary = train([joined(made(run, (f"k{number}", number), (f"k{number}", 1))) for number in range(300)], 2_000)
        await run.broker.publish(pack(made(run, ("a", 1), ("b", 2), ("a", 3)), Packer(dictionary), 0.0))
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()
        assert (letter.state, letter.code) == (LetterState.DEAD, "failed_precondition")
        await run.store.redrive([letter.position], who="ann", why="too early", at=run.clock.now())

        async def dead_again() -> bool:
            await run.clock.advance(1)
            (again,) = await run.store.letters()
            return again.state is LetterState.DEAD and again.redrives == 1

        await until(dead_again, "dead again")
        monkeypatch.setattr(contract, "dictionaries", (dictionary,))
        await run.store.redrive([letter.position], who="ann", why="it is there", at=run.clock.now())
        await has_effects(run, 2, step=0.5)

        async def one_left() -> bool:
            await run.clock.advance(1)
            return [each.key for each in await run.store.letters()] == ["b"]

        await until(one_left, "only the event that failed is held")
        assert await run.effects() == [("a", 1), ("a", 3)]


async def test_the_contracts_dictionary_is_written_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batched(tmp_path / "first") as run:
        dictionary = train([joined(made(run, (f"k{number}", number), (f"k{number}", 1))) for number in range(300)], 2_000)
        await together(run, ("a", 1), ("a", 2))
        await has_effects(run, 2)
        plain = len(stored(run)[0].data)
    monkeypatch.setattr(contract, "dictionaries", (dictionary,))

    async with batched(tmp_path / "second") as run:
        await together(run, ("a", 1), ("a", 2))
        await has_effects(run, 2)
        assert kinds(run) == [2]
        assert len(stored(run)[0].data) < plain


def test_topics_are_those_of_the_owned_events_unless_named() -> None:
    assert list(Service("orders", owns=[Placed], batches=Batches()).batched) == [PLACED_TOPIC]
    assert list(Service("orders", owns=[Placed], batches=Batches(["pay.v1.commands"])).batched) == ["pay.v1.commands"]
    assert Service("orders", owns=[Placed]).batched == {}
    with pytest.raises(SetupError, match="owns no events"):
        Service("mail", batches=Batches()).check()
