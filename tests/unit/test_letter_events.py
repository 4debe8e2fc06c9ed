"""Events about held messages: only for those who ask, with the letter's own transaction, without its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan import App, Code, Context, Error, Limits, Service
from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.letter_events import MessageDead, MessageParked, MessageRecovered, RedriveStopped
from linkspan.letters.redrive import Redrive, Redrives
from linkspan.testing.clock import fake_runtime
from tests.unit.durable import EFFECTS, Placed, note, until

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

TOPIC = "linkspan.deadletter.v1.events"
CANARY = "CANARY-4711"


class Heard:
    """What a service that alerts was told, and the system that tells it."""

    def __init__(self, folder: Path, *, letter_events: bool = True, parked: tuple[float, ...] = (1.0,)) -> None:
        self.runtime, self.clock = fake_runtime()
        self.log = MemoryLog()
        self.broker = MemoryBroker(runtime=self.runtime, log=self.log)
        self.events: list[Any] = []
        self.fails: Error | None = Error(Code.UNAVAILABLE, "Away.")
        self.orders = Service("orders", owns=[Placed])
        self.mail = Service("mail", migrations=[EFFECTS], limits=Limits(inline=1, parked=parked), letter_events=letter_events)
        self.mail.on(Placed)(self.react)
        alerts = Service("alerts", limits=Limits(inline=1, parked=()), letter_events=letter_events)
        if letter_events:
            for cls in (MessageParked, MessageDead, MessageRecovered, RedriveStopped):
                alerts.on(cls)(self.hear)
        self.app = App(self.orders, self.mail, alerts, broker=self.broker, http="127.0.0.1:0", data=folder, runtime=self.runtime)

    async def react(self, ctx: Context, event: Placed) -> None:
        if self.fails is not None:
            raise self.fails
        await note(ctx, event)

    async def hear(self, _ctx: Context, event: Any) -> None:
        self.events.append(event)
        if self.fails is not None and self.fails.code is Code.INTERNAL:
            raise Error(Code.INTERNAL, "The pager is broken too.")

    async def publish(self, *keys: str) -> None:
        for key in keys:
            async with self.app.transaction(self.orders) as ctx:
                await ctx.publish(Placed(order=key, number=1, note=CANARY))

    async def told(self, *kinds: type[Any]) -> None:
        async def so() -> bool:
            await self.clock.advance(0.2)
            await self.app.stores[self.app.store_url(self.mail)].apply([])
            return [type(event) for event in self.events] == list(kinds)

        await until(so, f"told {[kind.__name__ for kind in kinds]}, not {self.events}")


def running(heard: Heard) -> AbstractAsyncContextManager[App]:
    return heard.app


async def test_parked_dead_and_recovered_are_told_without_content(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    await heard.broker.open()
    async with running(heard):
        await heard.publish("a")
        await heard.told(MessageParked, MessageDead)
        heard.fails = None
        store = heard.app.running["mail"].store
        assert store is not None
        (letter,) = await store.letters()
        await store.redrive([letter.position], who="ada", why="mended", at=1.0)
        await heard.told(MessageParked, MessageDead, MessageRecovered)

    parked, dead, recovered = heard.events
    assert (parked.service, parked.topic, parked.message_key, parked.message_type) == (
        "mail",
        "durable.test.v1.events",
        "a",
        "durable.test.v1.Placed",
    )
    assert (dead.message_id, dead.code, dead.error, dead.group) == (letter.id, "unavailable", "Away.", letter.fingerprint)
    assert (recovered.message_id, recovered.redrives) == (letter.id, 0)
    assert not [each for each in heard.log.topics[TOPIC].records if CANARY.encode() in each.data]


async def test_a_message_that_is_parked_again_is_told_once(tmp_path: Path) -> None:
    heard = Heard(tmp_path, parked=(1.0, 1.0))
    await heard.broker.open()
    async with running(heard):
        await heard.publish("a")

        async def dead() -> bool:
            await heard.clock.advance(0.2)
            await heard.app.stores[heard.app.store_url(heard.mail)].apply([])
            return any(isinstance(event, MessageDead) for event in heard.events)

        await until(dead, "it is dead")

    assert [type(event) for event in heard.events] == [MessageParked, MessageDead]
    assert heard.events[1].attempts == 3


async def test_nothing_is_told_and_no_topic_made_where_nobody_asks(tmp_path: Path) -> None:
    heard = Heard(tmp_path, letter_events=False)
    await heard.broker.open()
    async with running(heard):
        await heard.publish("a")
        store = heard.app.running["mail"].store
        assert store is not None

        async def dead() -> bool:
            await heard.clock.advance(0.2)
            return [each.state.value for each in await store.letters()] == ["dead"]

        await until(dead, "it is dead")

        assert TOPIC not in heard.log.topics
        assert await heard.app.stores[heard.app.store_url(heard.mail)].unsent(0, 10) == []


async def test_alert_that_fails_raises_no_other(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    heard.fails = Error(Code.INTERNAL, "Broken.")
    await heard.broker.open()
    async with running(heard):
        await heard.publish("a")
        await heard.told(MessageDead)
        for _ in range(20):
            await heard.clock.advance(0.5)
        store = heard.app.running["alerts"].store
        assert store is not None

        assert [each.type for each in await store.letters()] == ["linkspan.deadletter.v1.MessageDead"]
        assert len(heard.events) == 1


async def test_redrive_that_stops_by_itself_is_told(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    heard.fails = Error.refused("Broken.")
    await heard.broker.open()
    async with running(heard):
        await heard.publish("a", "b", "c")
        await heard.told(MessageDead, MessageDead, MessageDead)
        store = heard.app.running["mail"].store
        assert store is not None
        heard.events.clear()
        asked = Redrive("r1", "mail", "", "", 1_000, 3, 10.0, 3, 4.0, "ada", "mended", heard.clock.now())
        assert await Redrives(store).ask(asked)

        async def stopped() -> bool:
            await heard.clock.advance(0.2)
            return any(isinstance(each, RedriveStopped) for each in heard.events)

        await until(stopped, "told that it stopped")

    (event,) = [each for each in heard.events if isinstance(each, RedriveStopped)]
    assert (event.service, event.redrive) == ("mail", "r1")
    assert "mend the cause" in event.reason
