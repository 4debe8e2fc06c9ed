"""An app inside Starlette and FastAPI, and under an ASGI server of other people."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from linkspan import App, Client, Code, Context, Error, Service, SetupError
from linkspan.transport.http import HttpTransport
from tests.integration.asgi_servers import uvicorn_serving
from tests.integration.direct_orders import RUNTIME
from tests.unit.app_shop import Find, Found, Orders, Place, Placed, app_of, orders_service, reacting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIND = "/app.shop.v1.Orders/Find"


def guest(folder: Path, *services: Service, **more: Any) -> App:
    return App(*services, **{"broker": "memory://", "data": folder, **more})


async def hello(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def ask(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    def blocking() -> tuple[int, bytes]:
        request = urllib.request.Request(url, body, {"content-type": "application/json"} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return await asyncio.to_thread(blocking)


async def test_app_mounted_on_fastapi_answers_beside_its_routes(tmp_path: Path) -> None:
    fastapi = pytest.importorskip("fastapi", reason="not run: fastapi is not installed")
    lived: list[str] = []

    @asynccontextmanager
    async def own(_: Any) -> AsyncIterator[dict[str, str]]:
        lived.append("opened")
        yield {"kept": "state"}
        lived.append("closed")

    api = fastapi.FastAPI(lifespan=own)

    @api.get("/hello")
    async def greet(request: fastapi.Request) -> str:
        return str(request.state.kept)

    greet.__annotations__["request"] = fastapi.Request
    app = guest(tmp_path, orders_service())
    app.mount_on(api, "/rpc")
    async with uvicorn_serving(api) as address, Client(addresses=f"{address}/rpc") as client:
        assert app.address == ""
        assert await client.call(Orders.find, Find(order="7")) == Found(order="7")
        status, body = await ask(f"{address}/rpc{FIND}", b'{"order":"8"}')
        assert (status, json.loads(body)) == (200, {"order": "8"})
        assert lived == ["opened"]
    assert lived == ["opened", "closed"]
    assert not app.running


@pytest.mark.parametrize("way", ["argument", "block"])
async def test_outer_lifespan_runs_the_app(tmp_path: Path, way: str) -> None:
    app = guest(tmp_path, orders_service())

    @asynccontextmanager
    async def block(_: Any) -> AsyncIterator[None]:
        async with app.lifespan():
            yield

    routes = [Route("/hello", hello), Mount("/rpc", app.asgi())]
    outer = Starlette(routes=routes, lifespan=app.lifespan if way == "argument" else block)
    async with uvicorn_serving(outer) as address, Client(addresses=f"{address}/rpc") as client:
        assert await ask(f"{address}/hello") == (200, b"hello")
        assert await client.call(Orders.place, Place(order="7", note="n")) == Found(order="7")


async def test_app_is_an_asgi_application_by_itself(tmp_path: Path) -> None:
    app = guest(tmp_path, orders_service())
    async with uvicorn_serving(app.asgi()) as address, Client(addresses=address) as client:
        assert await client.call(Orders.find, Find(order="7")) == Found(order="7")
        status, body = await ask(f"{address}/elsewhere")
        assert (status, json.loads(body)["code"]) == (404, "unimplemented")
    assert not app.running


async def test_mount_without_lifespan_answers_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = guest(tmp_path, orders_service())
    outer = Starlette(routes=[Mount("/rpc", app.asgi())])  # Starlette runs no lifespan of what it mounts
    async with uvicorn_serving(outer) as address:
        status, body = await ask(f"{address}/rpc{FIND}", b"{}")
    told = json.loads(body)
    assert (status, told["code"]) == (500, "internal")
    assert "lifespan is not run" in told["message"]
    assert "app.mount_on(outer, path)" in told["message"]
    assert [record.name for record in caplog.records if "not run" in record.message] == ["linkspan.transport"]


async def test_app_that_cannot_start_fails_the_server_with_its_sentence(tmp_path: Path) -> None:
    said: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    async with guest(tmp_path, orders_service()):
        await guest(tmp_path, orders_service()).asgi()({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in said] == ["lifespan.startup.failed"]
    assert "use PostgreSQL" in said[0]["message"]


async def test_calls_under_way_finish_before_the_app_ends(tmp_path: Path) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, request: Find) -> Found:
        started.set()
        await go_on.wait()
        return Found(order=request.order)

    app = guest(tmp_path, orders_service(find=slow))
    mounted = app.asgi()
    async with uvicorn_serving(mounted, lifespan="off") as address, Client(addresses=address) as client, app.lifespan():
        call = asyncio.create_task(client.call(Orders.find, Find(order="7")))
        await started.wait()
        ending = asyncio.create_task(app.aclose())
        await asyncio.sleep(0)
        status, body = await ask(f"{address}{FIND}", b"{}")
        assert (status, json.loads(body)["code"]) == (503, "unavailable")
        assert not ending.done()
        go_on.set()
        assert await call == Found(order="7")
        await ending


async def test_call_that_does_not_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()

    async def endless(ctx: Context, request: Find) -> Found:
        started.set()
        await asyncio.Event().wait()
        return Found()

    monkeypatch.setattr("linkspan.app.CALLS", 0.05)
    app = guest(tmp_path, orders_service(find=endless))
    async with uvicorn_serving(app.asgi(), lifespan="off") as address, Client(addresses=address) as client:
        async with app.lifespan():
            call = asyncio.create_task(client.call(Orders.find, Find(order="7")))
            await started.wait()
        with pytest.raises(Error) as caught:
            await call
    assert caught.value.code is Code.UNAVAILABLE
    assert "shutting down" in caught.value.message


async def test_services_of_a_mounted_app_call_each_other_at_a_door_that_others_do_not_find(tmp_path: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def look(ctx: Context, event: Placed) -> None:
        await told.put((await ctx.call(Orders.find, Find(order=event.order))).order)

    app = guest(tmp_path, orders_service(), reacting("mail", look))
    async with app.lifespan():
        async with app.client() as client:
            await client.call(Orders.place, Place(order="7", note="n"))
            async with asyncio.timeout(10):
                assert await told.get() == "7"
        door = app._entrances.own_address
        port = door.split("/")[2]
        for path in (FIND, f"/guess{FIND}"):
            transport = HttpTransport(f"http://{port}", clock=RUNTIME.clock)
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
            answer = await transport.send(head.encode() + b"{}", 5.0)
            await transport.aclose()
            assert answer.status == 404


async def test_app_told_an_address_listens_there_too(tmp_path: Path) -> None:
    app = app_of(tmp_path, orders_service())  # with http="127.0.0.1:0"
    async with uvicorn_serving(app.asgi()) as address:
        for each in (address, app.address):
            async with Client(addresses=each) as client:
                assert await client.call(Orders.find, Find(order="7")) == Found(order="7")


async def test_wrong_mounts_are_refused(tmp_path: Path) -> None:
    app = guest(tmp_path, orders_service())
    with pytest.raises(SetupError, match="write a path such as '/rpc'"):
        app.mount_on(Starlette(), "rpc")
    app = guest(tmp_path, orders_service())
    async with app.lifespan():
        with pytest.raises(SetupError, match=r"call asgi\(\) before it starts"):
            app.asgi()
