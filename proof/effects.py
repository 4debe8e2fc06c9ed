"""An effect happens once: `python -m proof.effects --events 5000000`, in shards of `--shard` events that are resumed.

One service publishes, another gives each event one effect, on SQLite and a real nats-server. A shard has two lives. In the first, three
messages of ten are published again behind the broker's back, some at once, some much later; the broker is killed after every few
thousand, and forgets acknowledgements; one event in five hundred is refused and becomes a dead letter, its key waits behind it. Then a
week passes, by the clock that the app is given, and its inbox is cleaned. In the second life a share of the old messages comes again,
the dead letters are redriven, and new events follow. At the end each event must have its effect once, in order per key.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import uvloop
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from linkspan import App, Context, Contract, Error, Event, Limits, Service, field
from linkspan.brokers import broker_for
from linkspan.ports import LetterState, Runtime
from linkspan.runtime import RandomIds, SystemClock, nowhere
from proof.sharding import Shards
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from nats.aio.msg import Msg

contract = Contract("proof.effects.v1")

TOPIC = "proof.effects.v1.events"
DUPLICATES = 0.34
"""The share of stored messages that are chosen to be published again, so that it is three in ten at the end."""
REFUSED = 500
"""One event of so many is refused until it is mended."""
KEYS = 500
WEEK = 7 * 86_400.0
KILL = 4_000
"""Events between two kills of the broker."""
AT_ONCE = 100
"""Events of one transaction."""
AHEAD = 3_000
"""Events that may wait to be handled."""
PATIENCE = 240.0
TABLE = "create table effect (position integer primary key, key text, number integer)"


class Counted(Event):
    """Something was counted."""

    key: str = field(1, key=True)
    number: int = field(2)


class Shifted(SystemClock):
    """The machine's clock, some time ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:  # type: ignore[override]  # a function there, a method here
        """Return seconds since 1970, of a later day."""
        return time.time() + self.ahead


class Echo:
    """Publishes again what the broker has stored, with the same ids, past what it recognises.

    Never what is only on its way: a repeat that is stored before its original would be another history.
    """

    def __init__(self, client: nats.NATS, source: random.Random) -> None:
        self._client, self._source = client, source
        self._late: list[tuple[str, dict[str, str], bytes]] = []
        self.old: list[tuple[str, dict[str, str], bytes]] = []
        self.published = 0
        self._last = 0

    async def listen(self) -> None:
        """Follow the stream from where this one stands; a killed server has forgotten who listened."""
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._last + 1, ack_policy=AckPolicy.NONE, mem_storage=True
        )
        await self._client.jetstream().subscribe(f"{TOPIC}.>", cb=self._heard, config=config)

    async def _heard(self, message: Msg) -> None:
        """Take note of a message; publish some again, at once or later."""
        if message.metadata.sequence.stream <= self._last:
            return
        self._last = message.metadata.sequence.stream
        headers = dict(message.headers or {})
        if "echo" in headers:
            return
        mine = {name: value for name, value in headers.items() if not name.startswith("Nats-")} | {"echo": "1"}
        chance = self._source.random()
        if chance < DUPLICATES / 3:
            await self._publish(message.subject, mine, message.data)
        elif chance < DUPLICATES * 2 / 3:
            self._late.append((message.subject, mine, message.data))
        elif chance < DUPLICATES:
            self.old.append((message.subject, mine, message.data))

    async def late(self) -> None:
        """Publish what was kept for later."""
        late, self._late = self._late, []
        self._source.shuffle(late)
        for each in late:
            await self._publish(*each)

    async def very_late(self) -> None:
        """Publish what was kept for another week."""
        for each in self.old:
            await self._publish(*each)
        self.old.clear()

    async def _publish(self, subject: str, headers: dict[str, str], data: bytes) -> None:
        await self._client.publish(subject, data, headers=headers)
        self.published += 1


class Shard:
    """So many events of one system."""

    def __init__(self, folder: Path, number: int, events: int) -> None:
        self._folder = folder
        self._events = events
        self._source = random.Random(f"effects/{number}")
        self._clock = Shifted()
        self._runtime = Runtime(self._clock, self._source, RandomIds(self._clock, random.Random()), nowhere)
        self._numbers = [0] * KEYS
        self._sent = 0
        self._kills = 0
        self._duplicates = 0
        self._dead = 0
        self._mended = False

    def _services(self) -> tuple[Service, Service]:
        orders = Service("orders", owns=[Counted])
        mail = Service("mail", migrations=[TABLE], limits=Limits(inline=1, parked=(1.0,)))

        @mail.on(Counted)
        async def count(ctx: Context, event: Counted) -> None:
            if not self._mended and event.number * KEYS + int(event.key[1:]) % KEYS in self._poison:
                raise Error.refused("Not before it is mended.")
            ctx.tx.record("insert into effect (key, number) values (?, ?)", event.key, event.number)

        return orders, mail

    @asynccontextmanager
    async def _life(self, server: NatsRunner) -> AsyncGenerator[tuple[App, Service]]:
        orders, mail = self._services()
        broker = broker_for(server.url, self._runtime, user=server.user, password=server.password)
        await broker.open()
        try:
            async with App(orders, mail, broker=broker, data=self._folder, http="127.0.0.1:0", runtime=self._runtime) as app:
                yield app, orders
                (consumer,) = app.running["mail"].consumers
                self._duplicates += consumer.counts.duplicates
        finally:
            await broker.aclose()

    async def run(self) -> dict[str, Any]:
        """Live both lives; return what came of it."""
        began = time.monotonic()
        first = self._events * 4 // 5
        step = max(1, self._events // REFUSED)
        self._poison = {self._source.randrange(self._events) for _ in range(step)}
        (self._folder / "nats").mkdir(parents=True)
        async with NatsRunner(self._folder / "nats") as server:
            client = await nats.connect(server.url, user=server.user, password=server.password, max_reconnect_attempts=-1, error_cb=_ignore)
            echo = Echo(client, self._source)
            async with self._life(server) as (app, orders):
                await echo.listen()
                await self._publish(app, orders, first, echo, server)
                await self._until(app, server)
                held = await self._letters(app)
            self._clock.ahead += WEEK
            async with self._life(server) as (app, orders):
                await echo.very_late()
                self._mended = True
                await self._redrive(app)
                await self._publish(app, orders, self._events - first, echo, server)
                await self._until(app, server)
                await echo.late()
                await self._until(app, server)
                rows = await self._read(app, "select key, number from effect order by position")
            await client.close()
        return {**self._judged(rows), "held": held, "echoed": echo.published, "seconds": round(time.monotonic() - began, 1)}

    async def _publish(self, app: App, orders: Service, count: int, echo: Echo, server: NatsRunner) -> None:
        for _ in range(count // AT_ONCE):
            async with app.transaction(orders) as ctx:
                for _ in range(AT_ONCE):
                    key = self._source.randrange(KEYS)
                    self._numbers[key] += 1
                    await ctx.publish(Counted(key=f"k{key}", number=self._numbers[key]))
            self._sent += AT_ONCE
            await self._room(app)
            if self._sent % KILL == 0:
                server.kill()
                self._kills += 1
                await server.start()
                await self._again(echo)
                await echo.late()

    async def _again(self, echo: Echo) -> None:
        """Listen again once the server answers."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await echo.listen()
                except (NatsError, OSError, TimeoutError):
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _room(self, app: App) -> None:
        """Wait until not too many events wait to be handled."""
        store = app.running["orders"].store
        assert store is not None
        while (await store.read("select count(*) from linkspan_outbox"))[0][0] > AHEAD:  # noqa: ASYNC110 - what a thread commits rings no bell here
            await asyncio.sleep(0.02)

    async def _read(self, app: App, sql: str) -> list[tuple[Any, ...]]:
        store = app.running["mail"].store
        assert store is not None
        return await store.read(sql)

    async def _letters(self, app: App) -> int:
        (count,) = (await self._read(app, "select count(*) from linkspan_letter"))[0]
        return int(count)

    async def _until(self, app: App, server: NatsRunner) -> None:
        """Wait until each event has its effect or is held; the broker is killed once more right after."""
        end = time.monotonic() + PATIENCE
        (consumer,) = app.running["mail"].consumers
        client = await nats.connect(server.url, user=server.user, password=server.password)
        try:
            while True:
                done = (await self._read(app, "select (select count(*) from effect) + (select count(*) from linkspan_letter)"))[0][0]
                info = await client.jetstream().consumer_info(TOPIC.replace(".", "_"), "mail")
                if done >= self._sent and not consumer.in_hand and not (info.num_pending or 0) + (info.num_ack_pending or 0):
                    return
                if time.monotonic() > end:
                    raise AssertionError(f"not in time: {done} of {self._sent}, {info.num_pending} pending")
                await asyncio.sleep(0.05)
        finally:
            await client.close()

    async def _redrive(self, app: App) -> None:
        """Ask for all dead letters, as the command line does, until none is held any more."""
        end = time.monotonic() + PATIENCE
        store = app.running["mail"].store
        assert store is not None
        while await self._letters(app):
            dead = [letter.position for letter in await store.letters(states=[LetterState.DEAD])]
            self._dead += len(dead)
            if dead:
                await store.redrive(dead, who="proof", why="mended", at=self._clock.now())
            assert time.monotonic() < end, "letters are still held"
            await asyncio.sleep(0.3)

    def _judged(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        last = dict.fromkeys((f"k{key}" for key in range(KEYS)), 0)
        seen: set[tuple[str, int]] = set()
        doubled = inverted = 0
        for key, number in rows:
            doubled += (key, number) in seen
            inverted += number < last[key]
            seen.add((key, number))
            last[key] = max(number, last[key])
        return {
            "events": self._sent,
            "effects": len(rows),
            "lost": self._sent - len(seen),
            "doubled": doubled,
            "inverted": inverted,
            "kills": self._kills,
            "recognised": self._duplicates,
            "redriven": self._dead,
        }


async def _ignore(_error: Exception) -> None:
    """Say nothing: the server is killed on purpose."""


async def one(number: int, events: int) -> dict[str, Any]:
    """Run one shard in a folder of its own, which is kept when something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="linkspan-effects-"))
    try:
        found = await Shard(folder, number, events).run()
    except (AssertionError, TimeoutError) as error:
        return {"events": 0, "lost": 0, "doubled": 0, "inverted": 0, "kills": 0, "failed": str(error) or repr(error), "seconds": 0.0}
    if not found["lost"] + found["doubled"] + found["inverted"]:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def summary(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the proof."""
    total = {
        what: sum(found.get(what, 0) for found in done)
        for what in ("events", "echoed", "recognised", "kills", "redriven", "lost", "doubled", "inverted")
    }
    failed = [found["failed"] for found in done if "failed" in found]
    broken = total["lost"] + total["doubled"] + total["inverted"] + len(failed)
    tried = f"{total['events']} events, {total['echoed']} published again, {total['recognised']} repeats recognised, "
    tried += f"{total['kills']} brokers killed, {total['redriven']} redriven after a week"
    return {"tried": tried, **total, "failed": failed[:5], "violations": broken, "holds": total["events"] > 0 and not broken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    shards = Shards.of("proof.effects", __doc__, arguments, events=100_000, shard=20_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return shards.prove(lambda number, events: runner.run(one(number, events)), summary)


if __name__ == "__main__":
    sys.exit(main())
