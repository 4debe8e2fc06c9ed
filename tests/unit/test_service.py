"""Declarations that could not work are refused where they are made, with a sentence that says what to do."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Context, Service, SetupError
from tests.unit.app_shop import Find, Found, Keyless, Orders, Place, Placed, app_of, find_nothing, orders_service, place_and_tell
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


def other_contract() -> Any:
    return declare("""
class Ask(Message):
    text: str = field(1)
class Others(ServiceContract):
    ask = query(Ask, Ask)
    watch = query(Ask, stream(Ask))
class Later(ServiceContract):
    ask = command(Ask, Ask, answer='later')
""")


async def react(ctx: Context, event: Placed) -> None:
    """Do nothing."""


def sync(ctx: Context, event: Placed) -> None:
    """Do nothing, at once."""


def handled_twice() -> None:
    orders_service().handles(Orders.find)(find_nothing)


def reacting_twice() -> None:
    service = Service("mail")
    service.on(Placed)(react)
    service.on(Placed)(react)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "name with blanks": (lambda: Service("my service"), "Service name 'my service' cannot be used: write lower-case letters"),
    "name upper": (lambda: Service("Orders"), "Service name 'Orders' cannot be used"),
    "name empty": (lambda: Service(""), "Service name '' cannot be used"),
    "contract is a message": (lambda: Service("a", Place), "name classes that derive from ServiceContract"),  # type: ignore[arg-type]
    "migrations as text": (lambda: Service("a", migrations="create table a (b)"), "has a text as migrations: give a list"),
    "foreign operation": (lambda: Service("mail").handles(Orders.find), "does not implement 'app.shop.v1.Orders': add it to Service"),
    "no operation": (lambda: Service("mail").handles(Find), "name a query or command of a ServiceContract"),  # type: ignore[arg-type]
    "handled twice": (handled_twice, "handles 'app.shop.v1.Orders.Find' twice: keep one handler"),
    "reacting twice": (reacting_twice, "reacts to 'app.shop.v1.Placed' twice: keep one handler"),
    "reacting to a message": (lambda: Service("mail").on(Found), "name an Event class, or event(...) of a contract"),  # type: ignore[type-var]
    "keyless event": (lambda: Service("mail").on(Keyless), "Event 'app.shop.v1.Keyless' has no order key: mark one field"),
    "sync handler": (lambda: Service("mail").on(Placed)(sync), "which is not async: write async def"),  # type: ignore[arg-type]
    "stream that returns": (lambda: streaming(find_nothing), "which yields nothing: write async def with yield"),
    "sync operation": (lambda: Service("a", Orders).handles(Orders.find)(lambda _, request: request), "which is not async"),  # type: ignore[arg-type, return-value]
}


@pytest.mark.parametrize(("declaring", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_wrong_declaration_is_refused(declaring: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(SetupError, match=re.escape(sentence)):
        declaring()


def unhandled() -> Service:
    service = Service("orders", Orders)
    service.handles(Orders.place)(place_and_tell)
    return service


def streaming(handler: Any = None) -> Service:
    declared = other_contract()
    service = Service("others", declared.Others)
    service.handles(declared.Others.ask)(find_nothing)
    if handler is not None:
        service.handles(declared.Others.watch)(handler)
    return service


def later() -> Service:
    declared = other_contract()
    service = Service("others", declared.Later)
    service.handles(declared.Later.ask)(find_nothing)
    return service


NEVER: dict[str, tuple[Callable[[], list[Service]], str]] = {
    "unhandled operation": (lambda: [unhandled()], "no handler for 'app.shop.v1.Orders.Find': add @orders.handles(Orders.find)"),
    "unhandled stream": (lambda: [streaming()], "has no handler for 'declared"),
    "later without key": (lambda: [later()], "answers later without an order key: mark a field with key=True"),
    "same name twice": (lambda: [Service("mail"), Service("mail")], "Two services are called 'mail': rename one"),
    "same contract twice": (
        lambda: [orders_service(), orders_service(name="more")],
        "'app.shop.v1.Orders' is implemented by 'orders' and by 'more': keep one",
    ),
    "store shared by one side": (
        lambda: [Service("a", store="sqlite:///DATA/b.db"), Service("b")],
        "The services 'a' and 'b' would share a store",
    ),
}


@pytest.mark.parametrize(("services", "sentence"), NEVER.values(), ids=NEVER.keys())
def test_app_that_could_not_work_is_refused_when_it_is_made(services: Callable[[], list[Service]], sentence: str, tmp_path: Path) -> None:
    given = services()
    for service in given:
        service.store = service.store and service.store.replace("DATA", str(tmp_path))
    with pytest.raises(SetupError, match=re.escape(sentence)):
        app_of(tmp_path, *given)
    assert list(tmp_path.iterdir()) == []


def test_handler_stays_the_function_it_was() -> None:
    service = Service("mail")

    assert service.on(Placed)(react) is react
    assert repr(service) == "Service('mail')"


def test_object_with_async_call_may_be_a_handler() -> None:
    class Mailer:
        async def __call__(self, ctx: Context, event: Placed) -> None:
            """Do nothing."""

    service = Service("mail")
    service.on(Placed)(Mailer())
    assert list(service.events) == ["app.shop.v1.Placed"]


def test_files_of_a_folder_are_applied_by_their_numbers(tmp_path: Path) -> None:
    for name in ("10_b.sql", "9_a.sql", "notes.txt", "last.sql"):
        (tmp_path / name).write_text(f"-- {name}")
    service = Service("mail", migrations=tmp_path)

    assert service.scripts() == [("9_a.sql", "-- 9_a.sql"), ("10_b.sql", "-- 10_b.sql"), ("last.sql", "-- last.sql")]


@pytest.mark.parametrize("folder", ["missing", "."])
def test_folder_without_migrations_is_refused(folder: str, tmp_path: Path) -> None:
    service = Service("mail", migrations=tmp_path / folder)

    with pytest.raises(SetupError, match=r"has no \.sql file: create it or correct the path"):
        service.scripts()


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield None


def test_texts_are_numbered() -> None:
    assert Service("mail", migrations=["one", "two"], lifespan=nothing).scripts() == [("0001", "one"), ("0002", "two")]
