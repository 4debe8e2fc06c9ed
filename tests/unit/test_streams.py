"""Streams in the one shape: both sides, every kind, the same middleware, errors, deadlines, clean-up and transactions as calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.app_streams import Count, Number, Numbers, numbers, numbers_service, streams_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from linkspan import Context


async def values(stream: AsyncIterator[Number]) -> list[int]:
    return [number.value async for number in stream]


async def test_every_kind_of_stream_reaches_its_handler_and_comes_back(tmp_path: Path) -> None:
    async with streams_app(tmp_path, numbers_service()) as app, app.client() as client:
        assert await values(client.stream(Numbers.count, Count(to=3))) == [1, 2, 3]
        assert await client.call(Numbers.add, numbers(1, 2, 3)) == Number(value=6)
        assert await values(client.stream(Numbers.double, numbers(1, 2, 3))) == [2, 4, 6]
        assert await values(client.stream(Numbers.note, Count(to=2))) == [1, 2]
        assert await client.call(Numbers.keep, numbers()) == Number(value=0)
        assert await values(client.stream(Numbers.swap, numbers())) == []
        assert await client.call(Numbers.one, Count(to=1)) == Number(value=1)


async def test_handlers_call_streams_of_others(tmp_path: Path) -> None:
    async def total(ctx: Context, request: Count) -> Number:
        found = [number async for number in ctx.stream(Numbers.count, Count(to=request.to))]
        doubled = [number async for number in ctx.stream(Numbers.double, numbers(*[number.value for number in found]))]
        return await ctx.call(Numbers.add, numbers(*[number.value for number in doubled]))

    async with streams_app(tmp_path, numbers_service(one=total)) as app, app.client() as client:
        assert await client.call(Numbers.one, Count(to=3)) == Number(value=12)
