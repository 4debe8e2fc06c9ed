"""The life of an App: opening in order, sharing, migrating, failing half-way, closing, and starting again."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest

from linkspan import Code, Context, Error, Limits, Service, SetupError
from linkspan.brokers.memory import MemoryBroker
from linkspan.ports import LetterState
from linkspan.runtime import system as real
from linkspan.testing.clock import settle
from tests.unit import durable
from tests.unit.app_shop import TABLE, Find, Found, Orders, Place, Placed, app_of, orders_service, reacting
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from linkspan import App


class Pool:
    """A resource that says when it is open."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    async def __aenter__(self) -> Self:
        self._log.append(f"{self.name} opened")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._log.append(f"{self.name} closed")


class Faster(Pool):
    """A resource that is another, too."""


def with_pool(log: list[str], name: str, *, fail: bool = False) -> Any:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Pool]:
        async with Pool(name, log) as pool:
            if fail:
                raise RuntimeError("no pool today")
            yield pool

    return lifespan


async def seen(app: App, service: str) -> list[str]:
    store = app.running[service].store
    assert store is not None
    return [text for (text,) in await store.read("select text from seen order by rowid")]


# --- opening and closing ---


async def test_resources_close_in_reverse_after_handlers_under_way(tmp_path: Path) -> None:
    log: list[str] = []
    started = asyncio.Event()

    async def slow(ctx: Context, event: Placed) -> None:
        started.set()
        pool = ctx.resource(Pool)
        await asyncio.sleep(0.05)
        log.append(f"handled with {pool.name}")

    app = app_of(tmp_path, orders_service(lifespan=with_pool(log, "first")), reacting("mail", slow, lifespan=with_pool(log, "second")))
    async with app, app.client() as client:
        await client.call(Orders.place, Place(order="7"))
        await started.wait()

    assert log == ["first opened", "second opened", "handled with second", "second closed", "first closed"]


async def test_what_was_opened_is_closed_when_the_start_fails_half_way(tmp_path: Path) -> None:
    log: list[str] = []
    first = Service("first", lifespan=with_pool(log, "first"))
    app = app_of(tmp_path, first, Service("second", lifespan=with_pool(log, "second", fail=True)))

    with pytest.raises(RuntimeError, match="no pool today"):
        await app.start()

    assert log == ["first opened", "second opened", "second closed", "first closed"]
    assert (app.broker, app.running, app.stores, app.address) == (None, {}, {}, "")
    async with app_of(tmp_path, first):
        assert log[-1] == "first opened"  # the database's lock is free again


async def test_failed_start_can_be_repeated(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = app_of(tmp_path, orders_service(), http=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SetupError, match=r"stop what holds it, or choose another port"):
            await app.start()
    async with app, app.client() as client:
        assert await client.call(Orders.find, Find(order="7")) == Found(order="7")


async def test_aclose_is_idempotent_and_start_is_not(tmp_path: Path) -> None:
    app = app_of(tmp_path, orders_service())
    await app.aclose()
    await app.start()
    with pytest.raises(SetupError, match="running already"):
        await app.start()
    await app.aclose()
    await app.aclose()
    assert not app.started.is_set()


def test_same_app_starts_again_in_another_loop(tmp_path: Path) -> None:
    app = app_of(tmp_path, orders_service())

    async def once() -> Found:
        waiting = asyncio.create_task(app.started.wait())
        await asyncio.sleep(0)
        async with app, app.client() as client:
            await waiting
            return await client.call(Orders.find, Find(order="7"))

    assert [asyncio.run(once()), asyncio.run(once())] == [Found(order="7"), Found(order="7")]


async def test_only_the_named_services_run(tmp_path: Path) -> None:
    app = app_of(tmp_path, orders_service(), Service("mail"))
    await app.start(["mail"])
    try:
        assert (list(app.running), app.address) == (["mail"], "")
        with pytest.raises(SetupError, match="Service 'orders' does not run here"):
            app.transaction(app.services[0])
    finally:
        await app.aclose()
    with pytest.raises(SetupError, match="There is no service 'billing' in this app: name one of orders, mail"):
        await app.start(["billing"])


async def test_given_broker_stays_open(tmp_path: Path) -> None:
    broker = MemoryBroker(runtime=real())
    await broker.open()
    async with app_of(tmp_path, Service("mail"), broker=broker):
        pass

    assert (await broker.attest()).engine == "memory"
    await broker.declare(["still.there.events"], [])
    await broker.aclose()


async def test_drain_lets_calls_under_way_call_their_own_process(tmp_path: Path) -> None:
    """The listener closes first; who works on goes through another door."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def place(ctx: Context, request: Place) -> Found:
        begun.set()
        await go_on.wait()
        return await ctx.call(Orders.find, Find(order=request.order))

    app = app_of(tmp_path, orders_service(place=place))
    await app.start()
    async with app.client() as client:
        call = asyncio.create_task(client.call(Orders.place, Place(order="7")))
        await begun.wait()
        closing = asyncio.create_task(app.aclose())
        await until(lambda: not is_listening(app.address), "nobody else is let in")
        go_on.set()
        assert await call == Found(order="7")
        await closing


async def test_drain_takes_up_nothing_that_is_held(tmp_path: Path) -> None:
    """While the last handler finishes, a parked message becomes due; it belongs to the next start."""
    runs: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(ctx: Context, event: durable.Placed) -> None:
        runs.append(event.order)
        if event.order == "bad":
            raise Error(Code.UNAVAILABLE, "Not now: try again.")
        begun.set()
        await go_on.wait()

    async with durable.system(tmp_path, handle, limits=Limits(inline=1, parked=(2.0,))) as system:
        await system.publish(("bad", 1))
        await until(lambda: system.mail.counts.parked == 1, "the bad one is parked")
        await system.publish(("slow", 1))
        await begun.wait()
        closing = asyncio.create_task(system.app.aclose())
        await settle(200)
        for _ in range(5):
            await system.clock.advance(1.0)
            await asyncio.sleep(0.01)
        go_on.set()
        await closing
    assert runs == ["bad", "slow"]


def is_listening(address: str) -> bool:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


# --- settings ---


@pytest.mark.parametrize("http", ["here", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "a/b:80", "127.0.0.1:-1", "127.0.0.1:²"])
def test_address_that_cannot_be_listened_on_is_refused(http: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=re.escape(f"The address '{http}' (LINKSPAN_HTTP) cannot be listened on: write host:port.")):
        app_of(tmp_path, http=http)


@pytest.mark.parametrize(("http", "shown"), [("[::1]:80", "::1:80"), (":8080", "127.0.0.1:8080"), ("http://localhost:1/", "localhost:1")])
def test_address_is_read(http: str, shown: str, tmp_path: Path) -> None:
    assert app_of(tmp_path, http=http).settings()["http"] == shown


def test_environment_stands_in_for_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSPAN_BROKER", "nats://ada:secret@127.0.0.1:4222")
    monkeypatch.setenv("LINKSPAN_HTTP", "127.0.0.1:0")
    monkeypatch.setenv("LINKSPAN_DATA", str(tmp_path / "a b"))
    monkeypatch.setenv("LINKSPAN_ADDRESSES", "orders=http://127.0.0.1:1, *=http://127.0.0.1:2")
    from linkspan import App

    app = App(Service("mail"))

    assert app.settings() == {
        "broker": "nats://127.0.0.1:4222",
        "http": "127.0.0.1:0",
        "tls": "off",
        "grpc": "",
        "probes": "",
        "data": str(tmp_path / "a b"),
        "addresses": {"orders": "http://127.0.0.1:1", "*": "http://127.0.0.1:2"},
        "middleware": ["Tracing", "Deadline"],
    }
    assert app.store_url(app.services[0]) == f"sqlite:///{tmp_path}/a%20b/mail.db"
    assert App(Service("mail"), addresses={"orders": "http://127.0.0.1:3"}).settings()["addresses"]["orders"] == "http://127.0.0.1:3"


async def test_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20?#é"
    async with app_of(folder, Service("mail")):
        assert (folder / "mail.db").exists()


# --- resources ---


async def test_resources_are_found_by_type_and_can_be_overridden(tmp_path: Path) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def several() -> AsyncIterator[tuple[Faster, int]]:
        yield Faster("declared", log), 42

    service = Service("mail", lifespan=several)
    async with app_of(tmp_path, service) as app, app.transaction(service) as ctx:
        assert ctx.resource(Pool).name == ctx.resource(Faster).name == "declared"
        assert ctx.resource(int) == 42
        with pytest.raises(SetupError, match="Service 'mail' has no resource 'str': yield one from its lifespan"):
            ctx.resource(str)
    async with app_of(tmp_path, service, overrides={Faster: Faster("mine", log)}) as app, app.transaction(service) as ctx:
        assert ctx.resource(Faster).name == "mine"


async def test_two_resources_of_one_type_are_refused(tmp_path: Path) -> None:
    @asynccontextmanager
    async def twice() -> AsyncIterator[tuple[int, int]]:
        yield 1, 2

    with pytest.raises(SetupError, match="yields two of type 'int': give each a type of its own"):
        await app_of(tmp_path, Service("mail", lifespan=twice)).start()


# --- the user's tables ---


async def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    first = "create table seen (text text)"
    for scripts in ([first], [first, "insert into seen values ('second')"], [first, "insert into seen values ('second')"]):
        service = Service("mail", migrations=scripts)
        async with app_of(tmp_path, service) as app:
            found = await seen(app, "mail")
    assert found == ["second"]


@pytest.mark.parametrize(
    ("scripts", "sentence"),
    [
        (["create table seen (text blob)"], "Migration 'mail/0001' has changed since it was applied: restore it and add a new one"),
        ([], "Migration 'mail/0001' was applied to this store and is gone: put it back"),
        ([TABLE, "create tabel x"], "Migration 'mail/0002' failed and was undone"),
    ],
)
async def test_changed_gone_and_failing_migrations_are_refused(scripts: list[str], sentence: str, tmp_path: Path) -> None:
    async with app_of(tmp_path, Service("mail", migrations=[TABLE])):
        pass
    with pytest.raises(SetupError, match=re.escape(sentence)):
        await app_of(tmp_path, Service("mail", migrations=scripts)).start()
    async with app_of(tmp_path, Service("mail", migrations=[TABLE])):
        pass


# --- one store for two services ---


async def test_services_that_share_a_store_keep_inbox_letters_and_migrations_apart(tmp_path: Path) -> None:
    """Both get the same event; one cannot handle it, which must neither hold the other's keys nor pass for handled."""
    url = f"sqlite:///{tmp_path}/both.db"

    async def keep(ctx: Context, event: Placed) -> None:
        ctx.tx.record("insert into seen values (?)", f"{ctx.service} {event.order}")

    async def refuse(ctx: Context, event: Placed) -> None:
        raise Error(Code.FAILED_PRECONDITION, "Not here: look elsewhere.")

    kept = reacting("kept", keep, store=url, migrations=[TABLE])
    refused = reacting("refused", refuse, store=url, migrations=["create table other (text text)"])
    async with app_of(tmp_path, orders_service(), kept, refused) as app, app.client() as client:
        for order in ("7", "7", "8"):
            await client.call(Orders.place, Place(order=order))
        store = app.running["kept"].store
        assert store is not None
        await until(lambda: len_is(store.letters(), 3), "all of the other's are held")
        await until(lambda: len_is(seen(app, "kept"), 3), "all are handled")
        letters = await store.letters()
        tables = await store.read("select name from linkspan_migration order by name")
        assert app.running["refused"].store is store

    assert {letter.topic.partition(":")[0] for letter in letters} == {"refused"}
    assert sorted(((letter.key, letter.state) for letter in letters), key=lambda each: each[0]) == [  # keys do not wait for each other
        ("7", LetterState.DEAD),
        ("7", LetterState.WAITING),
        ("8", LetterState.DEAD),
    ]
    assert tables == [("kept/0001",), ("refused/0001",)]


async def len_is(reading: Any, count: int) -> bool:
    return len(await reading) == count
