"""One middleware guards every door: calls and streams, Connect, gRPC and REST; before validation and before the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from linkspan import App, Client, Code, Context, Contract, Error, Message, Service, ServiceContract, command, field, query, stream
from linkspan.middleware import Authorize, BearerToken, Deadline, JwtAuthentication, Tracing, require
from tests.unit.tokens import ISSUER, RSA, pem, token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

LATER = 4_000_000_000

contract = Contract("guarded.v1")


class Ask(Message):
    """Ask for something small."""

    count: int = field(1, gt=0)


class Told(Message):
    """Say who asked."""

    subject: str = field(1)


class Guarded(ServiceContract):
    """One operation of each kind."""

    tell = query(Ask, Told, http="GET /v1/told/{count}")
    watch = query(Ask, stream(Told))
    collect = command(stream(Ask), Told)


guarded = Service("guarded", Guarded)
RAN: list[str] = []


def subject(ctx: Context) -> Told:
    RAN.append(ctx.operation)
    return Told(subject=ctx.identity.subject if ctx.identity else "nobody")


@guarded.handles(Guarded.tell)
async def tell(ctx: Context, request: Ask) -> Told:
    return subject(ctx)


@guarded.handles(Guarded.watch)
async def watch(ctx: Context, request: Ask) -> AsyncGenerator[Told]:
    for _ in range(request.count):
        yield subject(ctx)


@guarded.handles(Guarded.collect)
async def collect(ctx: Context, requests: AsyncIterator[Ask]) -> Told:
    async for _ in requests:
        pass
    return subject(ctx)


async def asks() -> AsyncGenerator[Ask]:
    yield Ask(count=1)
    yield Ask(count=2)


def app_in(folder: Path) -> App:
    jwt = JwtAuthentication(issuer=ISSUER, audience="orders", keys=pem(RSA))
    layers = [Tracing(), Deadline(), jwt, Authorize({Guarded: require()})]
    return App(guarded, broker="memory://", http="127.0.0.1:0", grpc="127.0.0.1:0", data=folder, middleware=layers)


def address_of(app: App, door: str) -> str:
    return {"connect": app.address, "grpc": f"grpc://{app.grpc_address.rpartition('/')[2]}", "rest": f"rest+{app.address}"}[door]


def client(address: str, text: str = "") -> Client:
    return Client(addresses=address, middleware=[Tracing(), Deadline(), *([BearerToken(text)] if text else [])])


async def answers(caller: Client, what: str) -> list[str]:
    if what == "tell":
        return [(await caller.call(Guarded.tell, Ask(count=1))).subject]
    if what == "watch":
        return [told.subject async for told in caller.stream(Guarded.watch, Ask(count=2))]
    return [(await caller.call(Guarded.collect, asks())).subject]


DOORS = [(door, what) for door in ("connect", "grpc") for what in ("tell", "watch", "collect")] + [("rest", "tell")]


@pytest.mark.parametrize(("door", "what"), DOORS)
async def test_every_door_asks_who_calls(tmp_path: Path, door: str, what: str) -> None:
    RAN.clear()
    async with app_in(tmp_path) as app, client(address_of(app, door)) as unknown, client(address_of(app, door), token(exp=LATER)) as known:
        with pytest.raises(Error) as caught:
            await answers(unknown, what)
        assert (caught.value.code, RAN) == (Code.UNAUTHENTICATED, [])

        assert set(await answers(known, what)) == {"alice"}


async def test_who_calls_is_asked_before_what_is_asked(tmp_path: Path) -> None:
    """A stranger learns nothing of the rules of a message."""
    async with app_in(tmp_path) as app, client(app.address) as unknown, client(app.address, token(exp=LATER)) as known:
        with pytest.raises(Error) as caught:
            await unknown.call(Guarded.tell, Ask(count=-1))
        assert caught.value.code is Code.UNAUTHENTICATED
        with pytest.raises(Error) as caught:
            await known.call(Guarded.tell, Ask(count=-1))
        assert caught.value.code is Code.INVALID_ARGUMENT
