"""Every acknowledgement of NATS is preceded by the sync of its message: read from the system calls, not believed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client

from tests.integration.nats_runner import NatsRunner
from tests.power.trace import CALLS, Order, orders

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 200


def untraceable() -> str:
    """Return why system calls cannot be traced here, empty where they can."""
    if shutil.which("strace") is None:
        return "there is no strace: run scripts/get_power_tools.sh"
    done = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], check=False, capture_output=True)
    return "" if done.returncode == 0 else "this machine does not allow strace"


pytestmark = pytest.mark.skipif(bool(untraceable()), reason=f"not run: {untraceable()}")


async def traced(folder: Path, sync: str, count: int) -> list[Order]:
    """Publish one after the other to a server under strace, and read what it did."""
    trace = folder / "trace"
    tracer = ["strace", "-f", "-yy", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace)]
    server = NatsRunner(folder, sync=sync, under=tracer)
    async with server:
        client = Client()
        await client.connect(server.url, user=server.user, password=server.password)
        stream = client.jetstream()
        await stream.add_stream(name="marks", subjects=["marks"])
        for number in range(1, count + 1):
            confirmed = await stream.publish("marks", b"mark-%d-" % number)
            assert confirmed.seq == number
        await client.close()
        await asyncio.to_thread(server.end)  # strace has written all when it is gone
    return orders(trace.read_text(errors="replace").splitlines(), count)


async def test_every_acknowledgement_comes_after_its_sync(tmp_path: Path) -> None:
    found = await traced(tmp_path, "always", COUNT)

    assert [number for number, each in enumerate(found, 1) if not each.sound] == []


async def test_server_that_syncs_later_is_seen(tmp_path: Path) -> None:
    """The negative control: the server's default acknowledges what it has only written."""
    found = await traced(tmp_path, "2m", 20)

    assert all(each.written and each.acknowledged for each in found)
    assert not any(each.sound for each in found)
