"""Workers: the warm tasks that handlers run in, and the clock over them. No task, timer or thread hop per message (ADR 4)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from linkspan.incoming.work import met_itself, took_too_long, was_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Work

__all__ = ["Workers"]

SLICE = 256
"""Messages a worker handles before it lets the loop breathe."""


class Workers:
    """Runs `begin` for each message that is ready, and awaits what is left of it. `ready` and `idle` are for the hot path to look at."""

    def __init__(self, consumer: Consumer, begin: Callable[[Work], Coroutine[Any, Any, None] | None]) -> None:
        self.ready: deque[Work] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()
        self._consumer = consumer
        self._begin = begin
        self.tasks: dict[asyncio.Task[None], Work | None] = {}
        self._late: set[asyncio.Task[None]] = set()

    def start(self, count: int) -> None:
        """Start so many."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            self.tasks[loop.create_task(self._work())] = None

    async def aclose(self) -> None:
        """Stop all."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def offer(self, work: Work) -> None:
        """Let a worker take a message that is in hand, and whose key waits for nothing else."""
        self.ready.append(work)
        if self.idle:
            self.wake()

    def wake(self) -> None:
        """Wake one that has nothing to do; it wakes the next while there is more."""
        idle = self.idle
        while idle:
            future = idle.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are inside it
        ready, circuit, count = self.ready, self._consumer.circuit, 0
        while True:
            if not ready or (circuit.open and not circuit.permits(ready)):
                future = asyncio.get_running_loop().create_future()
                self.idle.append(future)
                await future
                continue
            work = ready.popleft()
            if ready and self.idle:
                self.wake()
            self.tasks[task] = work
            try:
                rest = self._begin(work)
                if rest is not None:
                    await rest
            except BaseException as error:
                if not self._survives(task, work, error):
                    raise
            if task in self._late:
                self._late.discard(task)
                task.uncancel()
            self.tasks[task] = None
            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)

    def _survives(self, task: asyncio.Task[None], work: Work, error: BaseException) -> bool:
        """Deal with what is no `Exception`; False where the worker itself is to end."""
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            return False
        if met_itself(error):
            self._consumer.finish(work, duplicate=True)  # it met its own repeat inside a task group
            return True
        if task in self._late:
            self._consumer.retrying.failed(work, took_too_long(self._consumer.limits(work.envelope.type)))
            return True
        if task.cancelling():
            return False
        self._consumer.retrying.failed(work, was_cancelled(error))
        return True

    @property
    def late(self) -> bool:
        """Tell whether the handler of the present task was ended because it took too long."""
        return asyncio.current_task() in self._late

    def end_late(self, now: float) -> None:
        """End handlers that have run too long."""
        for task, work in self.tasks.items():
            late = work and work.running and now - work.started > self._consumer.limits(work.envelope.type).timeout
            if late and task not in self._late:
                self._late.add(task)
                task.cancel()
