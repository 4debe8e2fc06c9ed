"""`buf curl`, which is connect-go: a client of its own kind asks for streams and queries, with the contract's exported schema."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.direct_streams import serving_streams

SCHEMA = """
syntax = "proto3";
package shop.direct.streams.v1;
message Item { string text = 1; int64 number = 2; }
service Items {
  rpc Watch(Item) returns (stream Item) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Upload(stream Item) returns (Item);
  rpc Get(Item) returns (Item) { option idempotency_level = NO_SIDE_EFFECTS; }
}
"""


def objects(text: str) -> list[dict[str, str]]:
    """Read JSON objects that stand one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


@pytest.mark.parametrize(
    ("rpc", "asked", "answered", "code"),
    [
        ("Watch", '{"text":"a","number":2}', [{"text": "a"}, {"text": "a", "number": "1"}], 0),
        ("Upload", '{"text":"a"}{"text":"b"}', [{"text": "a,b"}], 0),
        ("Get", '{"text":"q"}', [{"text": "q"}], 0),
        ("Watch", '{"text":"coded","number":1}', [{"text": "coded"}], 5 << 3),
    ],
)
async def test_buf_curl_is_answered(rpc: str, asked: str, answered: list[dict[str, str]], code: int, tmp_path: Path) -> None:
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}:{Path('/usr/local/bin')}") or shutil.which("buf")
    if buf is None:
        pytest.skip("not run: buf is not installed (PyPI buf-bin)")
    (tmp_path / "items.proto").write_text(SCHEMA)
    async with serving_streams() as (_, server):
        url = f"{server.address}/shop.direct.streams.v1.Items/{rpc}"
        command = [buf, "curl", "--protocol", "connect", "--schema", str(tmp_path), "-d", asked, url]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output, problem = await asyncio.wait_for(process.communicate(), 50)
        assert (process.returncode, objects(output.decode())) == (code, answered), problem
        assert not code or json.loads(problem)["details"][0]["debug"] == {"text": "why"}
