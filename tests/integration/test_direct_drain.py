"""Ending a server: nothing new, what runs finishes, what does not is cut with a code."""

from __future__ import annotations

import asyncio

import pytest

from linkspan.errors import Code, Error
from tests.integration.direct_orders import channel_to, get, post, raw, serving


async def test_drain_finishes_calls_in_flight_and_refuses_new_connections() -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel, raw(server.address) as idle:
        assert (await idle.ask(post()))[0] == 200
        call = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        draining = asyncio.create_task(server.drain(5))
        assert await idle.at_end()  # idle keep-alive connections end at once
        assert not draining.done()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            async with raw(server.address):
                pass
        shop.go_on.set()
        assert (await call).order_id == "wait"
        await asyncio.wait_for(draining, 1)
        with pytest.raises(Error) as caught:
            await get(channel)
        assert caught.value.code is Code.UNAVAILABLE
        await server.drain(5)  # again


async def test_answer_given_while_draining_closes_the_connection() -> None:
    async with serving() as (shop, server), raw(server.address) as peer:
        peer.writer.write(post(b'{"orderId":"wait"}'))
        await shop.started.wait()
        draining = asyncio.create_task(server.drain(5))
        await asyncio.sleep(0)
        shop.go_on.set()
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await peer.at_end()
        await draining


async def test_call_that_does_not_end_is_cut_as_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (shop, server), channel_to(server.address) as channel:
        call = asyncio.create_task(get(channel, "wait"))
        await shop.started.wait()
        await server.drain(0.05)
        with pytest.raises(Error) as caught:
            await call
        assert caught.value.code is Code.UNAVAILABLE
        assert "shutting down" in caught.value.message
        assert shop.cancelled.is_set()
    assert not caplog.records


async def test_server_that_never_started_drains_at_once() -> None:
    async with serving() as (_, server):
        other = type(server)([], runtime=server._runtime)
        await other.drain(1)
        assert not other._watch.connections
