"""grpcurl and `buf curl` against a running app: what it serves by reflection, calls, streams, health, errors; all three protocols."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Error
from linkspan.contracts.descriptors import descriptor_set
from tests.unit import app_streams
from tests.unit.app_streams import Number, numbers_service, streams_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from linkspan import App, Context

ROOT = Path(__file__).resolve().parents[2]
NAME = "app.streams.v1.Numbers"


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(ROOT / ".make/bin"), str(ROOT / ".venv/bin"), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"not run: {name} is not installed (scripts/get_{name}.sh)")
    return found


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def values(text: str) -> list[Any]:
    """Read JSON values that follow one another."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def made(tmp_path: Path) -> App:
    async def note(ctx: Context, request: Any) -> AsyncIterator[Number]:
        yield Number(value=1)
        raise Error(Code.OUT_OF_RANGE, "no more", [Number(value=7)])

    return streams_app(tmp_path, numbers_service(note=note), grpc="127.0.0.1:0")


async def test_grpcurl_lists_and_describes_what_is_served(tmp_path: Path) -> None:
    grpcurl = tool("grpcurl")
    async with made(tmp_path) as app:
        at = app.grpc_address.removeprefix("grpc://")
        _, listed, _ = await run(grpcurl, "-plaintext", at, "list")
        assert listed.split() == [NAME, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
        _, methods, _ = await run(grpcurl, "-plaintext", at, "list", NAME)
        assert methods.split() == [f"{NAME}.{each}" for each in ("Add", "Count", "Double", "Keep", "Note", "One", "Swap")]
        _, method, _ = await run(grpcurl, "-plaintext", at, "describe", f"{NAME}.Double")
        assert "rpc Double ( stream .app.streams.v1.Number ) returns ( stream .app.streams.v1.Number )" in method
        _, message, _ = await run(grpcurl, "-plaintext", at, "describe", ".app.streams.v1.Number")
        assert "int64 value = 1;" in message
        code, _, error = await run(grpcurl, "-plaintext", at, "describe", "app.streams.v1.Nothing")
        assert (code != 0, "not found" in error.lower()) == (True, True)


async def test_grpcurl_calls_streams_and_reads_errors_with_details(tmp_path: Path) -> None:
    grpcurl = tool("grpcurl")
    async with made(tmp_path) as app:
        at = app.grpc_address.removeprefix("grpc://")
        _, one, _ = await run(grpcurl, "-plaintext", "-d", '{"to": 3}', at, f"{NAME}/One")
        assert values(one) == [{"value": "3"}]
        _, counted, _ = await run(grpcurl, "-plaintext", "-d", '{"to": 2}', at, f"{NAME}/Count")
        assert values(counted) == [{"value": "1"}, {"value": "2"}]
        _, added, _ = await run(grpcurl, "-plaintext", "-d", '{"value": 3} {"value": 4}', at, f"{NAME}/Add")
        assert values(added) == [{"value": "7"}]
        _, doubled, _ = await run(grpcurl, "-plaintext", "-d", '{"value": 3} {"value": 4}', at, f"{NAME}/Double")
        assert values(doubled) == [{"value": "6"}, {"value": "8"}]
        code, some, told = await run(grpcurl, "-plaintext", "-d", '{"to": 2}', at, f"{NAME}/Note")
        assert values(some) == [{"value": "1"}]
        assert code == 64 + 11  # OUT_OF_RANGE
        assert "Code: OutOfRange" in told
        assert "no more" in told
        assert '"value": "7"' in told


async def test_grpcurl_asks_for_health(tmp_path: Path) -> None:
    grpcurl = tool("grpcurl")
    async with made(tmp_path) as app:
        at = app.grpc_address.removeprefix("grpc://")
        for service in ("", NAME):
            _, found, _ = await run(grpcurl, "-plaintext", "-d", json.dumps({"service": service}), at, "grpc.health.v1.Health/Check")
            assert values(found) == [{"status": "SERVING"}]


async def test_buf_curl_calls_by_grpc_and_reflection(tmp_path: Path) -> None:
    buf = tool("buf")
    async with made(tmp_path) as app:
        url = app.grpc_address.replace("grpc://", "http://")
        common = (buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge")
        _, counted, _ = await run(*common, "-d", '{"to": 2}', f"{url}/{NAME}/Count")
        assert values(counted) == [{"value": "1"}, {"value": "2"}]
        _, doubled, _ = await run(*common, "-d", '{"value": 3} {"value": 4}', f"{url}/{NAME}/Double")
        assert values(doubled) == [{"value": "6"}, {"value": "8"}]
        code, _, told = await run(*common, "-d", '{"to": 2}', f"{url}/{NAME}/Note")
        error = values(told)[0]
        assert (code != 0, error["code"], error["message"]) == (True, "out_of_range", "no more")
        assert error["details"][0]["type"] == "app.streams.v1.Number"


@pytest.mark.parametrize("protocol", ["connect", "grpcweb"])
async def test_buf_curl_calls_the_http_port(protocol: str, tmp_path: Path) -> None:
    buf = tool("buf")
    schema = tmp_path / "schema.binpb"
    schema.write_bytes(descriptor_set([app_streams.contract]).to_binary())
    async with made(tmp_path) as app:
        common = (buf, "curl", "--protocol", protocol, "--schema", str(schema))
        _, one, _ = await run(*common, "-d", '{"to": 3}', f"{app.address}/{NAME}/One")
        assert values(one) == [{"value": "3"}]
        _, counted, _ = await run(*common, "-d", '{"to": 2}', f"{app.address}/{NAME}/Count")
        assert values(counted) == [{"value": "1"}, {"value": "2"}]
        code, some, told = await run(*common, "-d", '{"to": 2}', f"{app.address}/{NAME}/Note")
        error = values(told)[0]
        assert (code != 0, values(some)) == (True, [{"value": "1"}])
        assert (error["code"], error["message"], error["details"][0]["type"]) == ("out_of_range", "no more", "app.streams.v1.Number")
