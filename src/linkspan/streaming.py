"""Streams in the one shape of handlers: a chain runs as long as its stream lasts, and its responses pass a hand-over (ADR 8)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.ports import Clock

__all__ = ["Emit", "driven", "emitting", "lone", "only", "received"]

Emit: TypeAlias = Callable[[Any], Awaitable[None]]


class _Handover:
    """Room for one response between a handler and its reader: the handler is at most one ahead."""

    __slots__ = ("_full", "_item", "_moved", "_room", "ended")

    def __init__(self) -> None:
        self.ended = self._full = False
        self._item: Any = None
        self._moved, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, item: Any) -> None:
        """Hand a response over; waits until there is room."""
        while self._full:
            self._room.clear()
            await self._room.wait()
        self._item, self._full = item, True
        self._moved.set()

    async def filled(self) -> bool:
        """Wait for a response; False at the end."""
        while not self._full and not self.ended:
            self._moved.clear()
            await self._moved.wait()
        return self._full

    def take(self) -> Any:
        """Return the response and make room."""
        item, self._item, self._full = self._item, None, False
        self._room.set()
        return item

    def end(self, _task: object) -> None:
        """Say that nothing more comes."""
        self.ended = True
        self._moved.set()


async def driven(run: Callable[[Emit], Awaitable[None]], *, deadline: float, clock: Clock, late: str) -> AsyncGenerator[Any, None]:
    """Run a chain in a task and yield what it emits; its end is the end, its exception is raised.

    A reader that stops, or is cancelled, cancels the task and waits until it has cleaned up. A deadline that passes does
    the same and ends the reader with DEADLINE_EXCEEDED and the text `late`.
    """
    handover = _Handover()
    task = asyncio.ensure_future(run(handover.put))
    task.add_done_callback(handover.end)
    over = _Deadline(task)
    timer = None if deadline == math.inf else clock.call_later(max(0.0, deadline - clock.monotonic()), over.pass_)
    try:
        while await handover.filled():
            yield handover.take()
    finally:
        if timer is not None:
            timer.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen; told below unless the reader has gone, and then nobody asks
    if over.passed:
        raise Error(Code.DEADLINE_EXCEEDED, late)
    await task


class _Deadline:
    """Ends a task when its time is over, and remembers that it did."""

    __slots__ = ("_task", "passed")

    def __init__(self, task: asyncio.Future[None]) -> None:
        self._task = task
        self.passed = False

    def pass_(self) -> None:
        """End the task, unless it has ended."""
        self.passed = not self._task.done()
        self._task.cancel()


def emitting(function: Callable[[Context, Any], AsyncGenerator[Any, None]], name: str, response: type[Any]) -> Handler:
    """Return the innermost handler for an async generator function: hands on each response with `ctx.emit`."""

    async def pump(ctx: Context, request: Any) -> None:
        responses = function(ctx, request)
        step: Awaitable[Any] = anext(responses)
        try:
            while True:
                try:
                    given = await step
                except StopAsyncIteration:
                    return
                if type(given) is not response:
                    raise Error(Code.INTERNAL, f"The handler of '{name}' yielded a {type(given).__name__}: yield its response type.")
                try:
                    await _emit(ctx, given)
                except BaseException as error:  # noqa: BLE001 - raised where the handler yields, so that its own timeouts and `finally` see it
                    step = responses.athrow(error)
                else:
                    step = anext(responses)
        finally:
            await responses.aclose()

    return pump


async def _emit(ctx: Context, response: Any) -> None:
    _refuse_waiting(ctx)
    if ctx.emit is None:
        raise AssertionError("a stream runs without a reader")
    await ctx.emit(response)


async def received(ctx: Context, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Yield the requests of a stream to its handler."""
    _refuse_waiting(ctx)
    async for request in requests:
        yield request
        _refuse_waiting(ctx)


def _refuse_waiting(ctx: Context) -> None:
    """Refuse to wait for the other side while everybody else waits for the writer."""
    tx = ctx.used_tx
    if tx is not None and tx.session is not None:
        text = f"'{ctx.operation}' would wait for its peer inside an interactive transaction: use ctx.tx.record, or execute at the end."
        raise Error(Code.FAILED_PRECONDITION, text)


async def lone(request: Any) -> AsyncGenerator[Any, None]:
    """Yield one request."""
    yield request


async def only(messages: AsyncIterator[Any], text: str, code: Code) -> Any:
    """Return the one message of a stream. Raises `Error(code, text)` where there is none, or a second one."""
    found: list[Any] = []
    async for message in messages:
        if found:
            raise Error(code, text)
        found.append(message)
    if not found:
        raise Error(code, text)
    return found[0]
