"""Connect, gRPC and gRPC-Web on one port: the app under servers that send trailers; and what others are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from linkspan import Client, Code
from linkspan.contracts.descriptors import descriptor_set
from tests.integration.grpc_orders import free_port
from tests.integration.test_grpc_streams import values_of, written
from tests.integration.test_grpc_tools import NAME, run, tool, values
from tests.unit import app_streams
from tests.unit.app_streams import Count, Numbers, numbers, numbers_service, streams_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.integration.one_port_app:asgi"
SERVERS = {
    "uvicorn": ("--http", "zttp", "--http2", "--log-level", "warning", "--port"),
    "pyvoy": ("--port",),
}


@contextlib.asynccontextmanager
async def served(name: str, folder: Path) -> AsyncIterator[str]:
    """Run the app under a server in a process of its own, and give `host:port` once it answers."""
    port = free_port()
    environment = {**os.environ, "ONE_PORT_FOLDER": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    log = (folder / "log").open("wb")
    process = await asyncio.create_subprocess_exec(
        tool(name), APP, *SERVERS[name], str(port), env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
    )
    try:
        async with asyncio.timeout(40):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None, (folder / "log").read_text()
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        log.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", list(SERVERS))
async def test_three_protocols_on_one_port(name: str, tmp_path: Path) -> None:
    if name == "uvicorn":
        pytest.importorskip("zttp", reason="not run: zttp is not installed")
    async with served(name, tmp_path) as at:
        async with grpc.aio.insecure_channel(at) as channel:
            request = Count(to=3).to_binary()
            assert values_of([await channel.unary_unary(Numbers.one.path)(request, timeout=20)]) == [3]
            assert values_of([body async for body in channel.unary_stream(Numbers.count.path)(request, timeout=20)]) == [1, 2, 3]
            assert values_of([await channel.stream_unary(Numbers.add.path)(written(1, 2), timeout=20)]) == [3]
            doubled = channel.stream_stream(Numbers.double.path)(written(1, 2), timeout=20)
            assert values_of([body async for body in doubled]) == [2, 4]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{NAME}/Nothing")(b"", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with Client(addresses=f"http://{at}") as client:
            assert (await client.call(Numbers.one, Count(to=4))).value == 4
            assert (await client.call(Numbers.add, numbers(1, 2))).value == 3
        await _tools(at, tmp_path)


async def _tools(at: str, folder: Path) -> None:
    schema = folder / "schema.binpb"
    schema.write_bytes(descriptor_set([app_streams.contract]).to_binary())
    for protocol, more in (("grpcweb", ()), ("connect", ()), ("grpc", ("--http2-prior-knowledge",))):
        call = (tool("buf"), "curl", "--protocol", protocol, "--schema", str(schema), *more)
        _, counted, _ = await run(*call, "-d", '{"to": 2}', f"http://{at}/{NAME}/Count")
        assert values(counted) == [{"value": "1"}, {"value": "2"}], protocol
    _, listed, _ = await run(tool("grpcurl"), "-plaintext", at, "list")
    assert NAME in listed.split()


@pytest.mark.parametrize(("version", "status"), [("1.1", 415), ("2", 404)])  # gRPC clients read a 404 as UNIMPLEMENTED
async def test_server_without_trailers_is_told_and_the_handler_does_not_run(version: str, status: int, tmp_path: Path) -> None:
    app = streams_app(tmp_path, numbers_service())
    asgi = app.asgi()
    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": version,
        "method": "POST",
        "path": f"/{NAME}/One",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/grpc+proto"), (b"te", b"trailers")],
        "extensions": {},
    }

    async def receive() -> Any:
        raise AssertionError("the request is read")

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.lifespan():
        await asgi(scope, receive, send)
    assert sent[0]["status"] == status
    told = json.loads(sent[1]["body"])
    assert told["code"] == Code.UNIMPLEMENTED.value
    assert ("trailers" if version == "2" else "HTTP/2") in told["message"]
