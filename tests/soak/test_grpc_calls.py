"""Many calls on one connection: none may fail, and neither side may grow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.soak.orders_server import GetOrder, Order, Orders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALLS = 100_000
IN_FLIGHT = 64
WARM = 20_000
GROWTH = 32 * 1024
"""KiB that a process may grow by while the calls after the first ones are made; a leak of 1 KiB a call would be 80 MiB."""


def resident(pid: int) -> int:
    """Return the memory of a process in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@contextlib.asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Give the address and the process id of a server in a process of its own."""
    arguments = (sys.executable, str(Path(__file__).with_name("orders_server.py")), str(folder))
    process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().strip()
    yield address.removeprefix("grpc://"), process.pid
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def call_all(call: Any, numbers: Any, outcomes: Counter[str]) -> None:
    """Make the next call until there is none; all callers share the numbers."""
    for number in numbers:
        try:
            body = await call(GetOrder(order_id=str(number)).to_binary(), timeout=60)
        except grpc.aio.AioRpcError as error:
            outcomes[f"{error.code().name}: {error.details()}"] += 1
        else:
            right = Order.from_binary(body) == Order(order_id=str(number), status="placed")
            outcomes["right" if right else "another's answer"] += 1


@pytest.mark.timeout(600)
async def test_calls_of_one_channel_never_fail_and_memory_is_bounded(tmp_path: Path) -> None:
    async with server(tmp_path) as (target, pid), grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(Orders.get_order.path)
        outcomes: Counter[str] = Counter()
        for first, last in ((0, WARM), (WARM, CALLS)):
            before = resident(pid), resident(os.getpid())
            numbers = iter(range(first, last))
            await asyncio.gather(*(call_all(call, numbers, outcomes) for _ in range(IN_FLIGHT)))
        grown = [resident(now) - then for now, then in zip((pid, os.getpid()), before, strict=True)]
    print(f"{CALLS} calls, {IN_FLIGHT} in flight, one channel: {dict(outcomes)}; grown by {grown} KiB (server, client)")
    assert outcomes == {"right": CALLS}
    assert max(grown) < GROWTH
