"""Only the service that owns a package states its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Code, Context, Contract, Error, Event, Service, SetupError, field
from linkspan.brokers.memory import MemoryBroker
from linkspan.runtime import system
from tests.unit.app_shop import Found, Keyless, Orders, Place, Placed, app_of, contract as shop, orders_service, reacting
from tests.unit.declaring import declare
from tests.unit.durable import until

if TYPE_CHECKING:
    from pathlib import Path

contract = Contract("owner.mail.v1")


class Thanked(Event):
    order: str = field(1, key=True)


QUIET = """
class Ask(Message):
    a: str = field(1)
class One(ServiceContract):
    one = query(Ask, Ask)
class Two(ServiceContract):
    two = query(Ask, Ask)
"""


async def refused(publishing: Any) -> str:
    with pytest.raises(Error) as caught:
        await publishing
    assert caught.value.code is Code.FAILED_PRECONDITION
    return caught.value.message


async def test_service_that_reacts_to_an_event_cannot_publish_it(tmp_path: Path) -> None:
    said: list[str] = []

    async def repeat(ctx: Context, event: Placed) -> None:
        said.append(await refused(ctx.publish(Placed(order="8"))))

    async with app_of(tmp_path, orders_service(), reacting("mail", repeat)) as app, app.client() as client:
        await client.call(Orders.place, Place(order="7"))
        await until(lambda: bool(said), "mail has tried")
    assert "".join(said) == (
        "Service 'mail' cannot publish 'app.shop.v1.Placed', which is for the service that owns 'app.shop.v1' to state: "
        "let that one publish it, or say with owns=['app.shop.v1'] that this is the owner."
    )


async def test_refused_event_stops_the_handler_and_writes_nothing(tmp_path: Path) -> None:
    async def place(ctx: Context, request: Place) -> Found:
        await ctx.publish(Placed(order=request.order))
        await ctx.publish(Thanked(order=request.order))
        return Found()

    async with app_of(tmp_path, orders_service(place=place)) as app, app.client() as client:
        with pytest.raises(Error, match=r"Service 'orders' cannot publish 'owner\.mail\.v1\.Thanked'") as caught:
            await client.call(Orders.place, Place(order="7"))
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert isinstance(app.broker, MemoryBroker)
        assert app.broker.log.topics["app.shop.v1.events"].records == []


async def test_contract_without_operations_is_owned_by_the_service_that_says_so(tmp_path: Path) -> None:
    thanked: list[str] = []

    async def thank(ctx: Context, event: Placed) -> None:
        await ctx.publish(Thanked(order=event.order))

    async def note(ctx: Context, event: Thanked) -> None:
        thanked.append(event.order)

    mail = reacting("mail", thank, owns=[contract])
    mail.on(Thanked)(note)
    async with app_of(tmp_path, orders_service(), mail) as app, app.client() as client:
        await client.call(Orders.place, Place(order="7"))
        await until(lambda: thanked == ["7"], "its own event has come")


async def test_client_states_facts_only_as_an_owner_or_in_the_place_of_all() -> None:
    broker = MemoryBroker(runtime=system())
    await broker.open()
    async with (
        Client(broker, name="till") as till,
        Client(broker, owns=[contract, "app.shop.v1"]) as owner,
        Client(broker, owns="*") as anybody,
    ):
        assert (await refused(till.publish(Thanked(order="1")))).startswith("Client 'till' cannot publish 'owner.mail.v1.Thanked'")
        for client in (owner, anybody):
            await client.publish(Thanked(order="1"))
            await client.publish(Placed(order="1"))
    assert [len(broker.log.topics[topic].records) for topic in ("owner.mail.v1.events", "app.shop.v1.events")] == [2, 2]
    await broker.aclose()


@pytest.mark.parametrize(
    ("services", "what"),
    [
        ((orders_service(), Service("mail", owns=[shop])), "'app.shop.v1'"),
        ((Service("a", owns=[Placed]), Service("b", owns=[Placed])), "'app.shop.v1.Placed'"),
    ],
)
def test_event_with_two_owners_is_refused_when_the_app_is_made(tmp_path: Path, services: tuple[Service, Service], what: str) -> None:
    with pytest.raises(SetupError, match=f"would both publish the events of {what}: give one of them owns="):
        app_of(tmp_path, *services)


def test_one_event_of_a_package_may_have_an_owner_of_its_own(tmp_path: Path) -> None:
    app_of(tmp_path, orders_service(), Service("mail", owns=[Keyless]))


def test_package_without_events_may_be_shared(tmp_path: Path) -> None:
    module = declare(QUIET)

    async def echo(ctx: Context, request: Any) -> Any:
        return request

    one, two = Service("one", module.One), Service("two", module.Two)
    one.handles(module.One.one)(echo)
    two.handles(module.Two.two)(echo)
    app_of(tmp_path, one, two)


@pytest.mark.parametrize(
    ("owns", "sentence"),
    [
        ("app.shop.v1", r"give a list, as in owns=\['app\.shop\.v1'\]"),
        ([Place], "cannot own .*Place.*: name contracts, their packages, or event classes"),
        ([7], "cannot own 7"),
        (["*"], r"cannot own '\*'"),
    ],
)
def test_what_cannot_be_owned_is_refused(owns: Any, sentence: str) -> None:
    with pytest.raises(SetupError, match=f"Service 'mail' .*{sentence}"):
        Service("mail", owns=owns)
    with pytest.raises(SetupError, match=f"Client 'client' .*{sentence}"):
        Client(owns=owns)
