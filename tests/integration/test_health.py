"""Health by `grpc.health.v1` on both ports, and the probes of an orchestrator: ready, not ready and why, draining, port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from linkspan import Client, Code, Error
from linkspan.brokers.memory import MemoryBroker
from linkspan.brokers.memory_log import MemoryLog
from linkspan.runtime import system
from linkspan.transport.health import CHECK, LIST, WATCH, HealthCheckRequest, HealthListRequest, Status
from tests.integration.direct_orders import raw
from tests.unit.app_streams import Count, Number, Numbers, numbers_service, streams_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from linkspan import App, Context


async def probe(address: str, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    async with raw(address) as peer:
        status, _, body = await peer.ask(f"{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        return status, json.loads(body)


@contextlib.asynccontextmanager
async def waiting(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[App, asyncio.Event, asyncio.Event]]:
    """Give an app with every port, an event that says that a call waits in it, and one that lets it go on."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def one(ctx: Context, request: Count) -> Number:
        started.set()
        await go_on.wait()
        return Number(value=1)

    app = streams_app(tmp_path, numbers_service(one=one), **{"grpc": "127.0.0.1:0", "probes": "127.0.0.1:0", **more})
    async with app:
        yield app, started, go_on


async def test_health_is_answered_over_connect_and_grpc(tmp_path: Path) -> None:
    async with waiting(tmp_path) as (app, _, _):
        for address in (app.address, app.grpc_address):
            async with Client(addresses=address) as client:
                for name in ("", "app.streams.v1.Numbers"):
                    assert (await client.call(CHECK, HealthCheckRequest(service=name))).status is Status.SERVING
                listed = await client.call(LIST, HealthListRequest())
                assert {name: each.status for name, each in listed.statuses.items()} == {
                    "": Status.SERVING,
                    "app.streams.v1.Numbers": Status.SERVING,
                }
                with pytest.raises(Error) as caught:
                    await client.call(CHECK, HealthCheckRequest(service="shop.v1.Nobody"))
                assert caught.value.code is Code.NOT_FOUND
                async with contextlib.aclosing(client.stream(WATCH, HealthCheckRequest(service="shop.v1.Nobody"))) as watched:
                    assert (await anext(watched)).status is Status.SERVICE_UNKNOWN


async def test_probes_say_what_is_wrong(tmp_path: Path) -> None:
    log = MemoryLog()
    broker = MemoryBroker(runtime=system(), log=log)
    await broker.open()
    async with waiting(tmp_path, broker=broker) as (app, _, _), Client(addresses=app.grpc_address) as client:
        for address in (app.address, app.probes_address):
            assert await probe(address, "/livez") == (200, {"status": "alive"})
            assert await probe(address, "/startupz") == (200, {"status": "started"})
            status, found = await probe(address, "/readyz")
            assert (status, found["status"]) == (200, "ready")
            assert found["checks"] == {"app": "ok", "durability": "ok", "broker": "ok", "store numbers": "ok", "outbox numbers": "ok"}
        log.stop()
        status, found = await probe(app.address, "/readyz")
        assert (status, found["status"], found["checks"]["broker"]) == (503, "not ready", "not connected")
        assert (await probe(app.address, "/livez"))[0] == 200  # a restart of this process would not bring the broker back
        assert (await client.call(CHECK, HealthCheckRequest())).status is Status.NOT_SERVING
        log.start()
        assert (await probe(app.address, "/readyz"))[0] == 200


async def test_probes_are_asked_by_get_or_head(tmp_path: Path) -> None:
    async with waiting(tmp_path) as (app, _, _):
        assert (await probe(app.address, "/readyz", "POST"))[0] == 405
        async with raw(app.address) as peer:
            peer.writer.write(b"HEAD /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            assert (await peer.reader.read()).startswith(b"HTTP/1.1 200 OK")


async def test_store_that_hangs_or_fails_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.readiness._PATIENCE", 0.05)
    async with waiting(tmp_path) as (app, _, _):
        store: Any = next(iter(app.stores.values()))
        read = store.read

        async def hangs(sql: str, args: Any = ()) -> Any:
            await asyncio.Event().wait()

        async def fails(sql: str, args: Any = ()) -> Any:
            raise Error(Code.UNAVAILABLE, "secret")

        monkeypatch.setattr(store, "read", hangs)
        status, found = await probe(app.address, "/readyz")
        assert (status, found["checks"]["store numbers"]) == (503, "no answer within 0.05 s")
        monkeypatch.setattr(store, "read", fails)
        status, found = await probe(app.address, "/readyz")
        assert (status, found["checks"]["store numbers"]) == (503, "unavailable")
        monkeypatch.setattr(store, "read", read)
        assert (await probe(app.address, "/readyz"))[0] == 200


async def test_not_ready_at_once_while_calls_under_way_go_on(tmp_path: Path) -> None:
    async with (
        waiting(tmp_path) as (app, started, go_on),
        grpc.aio.insecure_channel(app.grpc_address.removeprefix("grpc://")) as channel,
        Client(addresses=app.grpc_address) as client,
    ):
        watched = client.stream(WATCH, HealthCheckRequest())
        assert (await anext(watched)).status is Status.SERVING
        call = asyncio.ensure_future(_awaited(channel.unary_unary(Numbers.one.path)(Count(to=1).to_binary())))
        await started.wait()
        address = app.probes_address
        ending = asyncio.create_task(app.aclose())
        assert (await anext(watched)).status is Status.NOT_SERVING
        with pytest.raises(Error) as caught:  # whoever watches must not hold up the end
            await anext(watched)
        assert caught.value.code is Code.UNAVAILABLE
        status, found = await probe(address, "/readyz")
        assert (status, found["checks"]["app"]) == (503, "draining")
        assert (await probe(address, "/livez"))[0] == 200
        assert not call.done()
        assert not ending.done()
        go_on.set()
        assert Number.from_binary(await call).value == 1
        await asyncio.wait_for(ending, 5)
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await probe(address, "/livez")


async def _awaited(call: Any) -> Any:
    return await call


async def test_process_that_is_starting_is_alive_and_not_ready(tmp_path: Path) -> None:
    asked: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        for path in ("/livez", "/startupz", "/readyz"):
            asked[path] = (await probe(app.probes_address, path))[0]
        yield

    app = streams_app(tmp_path, numbers_service(more={"lifespan": lifespan}), probes="127.0.0.1:0")
    async with app:
        assert asked == {"/livez": 200, "/startupz": 503, "/readyz": 503}
        assert (await probe(app.probes_address, "/startupz"))[0] == 200


async def test_paths_of_calls_are_unknown_where_only_probes_are_answered(tmp_path: Path) -> None:
    async with waiting(tmp_path) as (app, _, _), Client(addresses=app.probes_address) as client:
        with pytest.raises(Error) as caught:
            await client.call(Numbers.one, Count(to=1))
        assert caught.value.code is Code.UNIMPLEMENTED
