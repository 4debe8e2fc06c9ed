"""Who calls, over real sockets: tokens, permissions, and keys fetched from an issuer."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Code, Context, Error
from linkspan.middleware import Authorize, BearerToken, Deadline, JwtAuthentication, Tracing, require
from linkspan.runtime import system
from linkspan.transport.fetch import fetch
from tests.integration.asgi_servers import uvicorn_serving
from tests.unit.app_shop import Find, Found, Orders, Place, Placed, app_of, orders_service, reacting
from tests.unit.tokens import ISSUER, RSA, jwks, pem, token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from linkspan.handler import Middleware

LATER = 4_000_000_000


async def who(ctx: Context, request: Find) -> Found:
    return Found(order=request.order, text=ctx.identity.subject if ctx.identity else "nobody")


def guards(**keys: Any) -> Sequence[Middleware]:
    authentication = JwtAuthentication(issuer=ISSUER, audience="orders", **(keys or {"keys": pem(RSA)}))
    return [Tracing(), Deadline(), authentication, Authorize({Orders.find: require(), Orders: require("orders:write")})]


def client(address: str, text: str = "") -> Client:
    layers = [Tracing(), Deadline(), *([BearerToken(text)] if text else [])]
    return Client(addresses=address, middleware=layers)


@pytest.mark.parametrize("mounted", [False, True], ids=["own-port", "asgi"])
async def test_token_opens_what_it_permits_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture, mounted: bool) -> None:
    caplog.set_level(logging.DEBUG)
    app = app_of(tmp_path, orders_service(find=who), middleware=guards())
    text = token(exp=LATER)
    async with uvicorn_serving(app.asgi()) as outer:
        address = outer if mounted else app.address
        async with client(address, text) as known, client(address) as unknown:
            assert (await known.call(Orders.find, Find(order="7"))).text == "alice"
            for caller, operation, request, code in (
                (known, Orders.place, Place(order="7"), Code.PERMISSION_DENIED),
                (unknown, Orders.find, Find(order="7"), Code.UNAUTHENTICATED),
            ):
                with pytest.raises(Error) as caught:
                    await caller.call(operation, request)  # type: ignore[arg-type]  # each its own
                assert caught.value.code is code
                assert text not in str(caught.value)
    assert text not in caplog.text
    assert text.rpartition(".")[2] not in caplog.text


async def test_call_is_refused_before_its_handler_or_transaction(tmp_path: Path) -> None:
    ran: list[str] = []

    async def place(ctx: Context, request: Place) -> Found:
        ran.append(request.order)
        return Found()

    app = app_of(tmp_path, orders_service(place=place), middleware=guards())
    async with app, client(app.address, token(exp=LATER)) as known:
        with pytest.raises(Error):
            await known.call(Orders.place, Place(order="7"))
    assert ran == []


async def test_durable_path_carries_no_identity(tmp_path: Path) -> None:
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def notice(ctx: Context, event: Placed) -> None:
        await seen.put((ctx.identity, dict(ctx.headers), ctx.path.value))

    async def place(ctx: Context, request: Place) -> Found:
        assert ctx.identity is not None
        await ctx.publish(Placed(order=request.order, note="n"))
        return Found()

    app = app_of(tmp_path, orders_service(place=place), reacting("mail", notice), middleware=guards())
    async with app, client(app.address, token(exp=LATER, scope="orders:write")) as known:
        await known.call(Orders.place, Place(order="7"))
        async with asyncio.timeout(10):
            assert await seen.get() == (None, {}, "durable")


async def published(scope: Any, receive: Any, send: Any) -> None:
    status = 200 if scope["path"] == "/keys" else 302
    headers = [(b"content-type", b"application/json"), (b"location", b"/keys")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": jwks(a=RSA)})


async def test_keys_are_fetched_from_the_issuer(tmp_path: Path) -> None:
    async with uvicorn_serving(published, lifespan="off") as issuer:
        app = app_of(tmp_path, orders_service(find=who), middleware=guards(jwks_url=f"{issuer}/keys"))
        async with app, client(app.address, token(exp=LATER, kid="a")) as known:
            assert (await known.call(Orders.find, Find(order="7"))).text == "alice"
        assert json.loads(await fetch(f"{issuer}/keys", system()))["keys"][0]["kid"] == "a"
        with pytest.raises(Error, match="answered 302"):
            await fetch(f"{issuer}/moved", system())
