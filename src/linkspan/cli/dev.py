"""`linkspan dev`: run the app of a folder, and start it anew when a file is saved.

The app runs in a process of its own (`worker`), which is drained and replaced; this one only watches. It holds the embedded broker
meanwhile, so that nothing is started twice and nothing is lost. A file that cannot be parsed replaces nothing: the old process goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import create_subprocess_exec
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from linkspan.cli.target import stand_here
from linkspan.cli.watch import Watch, syntax_error
from linkspan.cli.worker import Order
from linkspan.errors import SetupError
from linkspan.runtime import system

if TYPE_CHECKING:
    from asyncio.subprocess import Process

__all__ = ["check_target", "develop"]

LOOK = 0.25
"""Seconds between two looks at the files."""
GRACE = 10.0
"""Seconds that a process which is draining has, before it is ended; what it did not finish comes again."""
PATIENCE = 1.0
"""Seconds without an answer after which a process is told to be held."""


def check_target(target: str) -> None:
    """Refuse a target whose module is not there. Raises `SetupError`. Nothing is imported."""
    module, colon, attribute = target.partition(":")
    if not colon or not module or not attribute or module.startswith("."):
        raise SetupError(f"The target '{target}' names no app: write module:attribute, such as hello:app.")
    stand_here()
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise SetupError(f"There is no module '{module}' here: start in the folder that holds it.")


class Child:
    """One worker process and what it says."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._writer = writer
        self.ended = asyncio.get_running_loop().create_task(process.wait())
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.draining = asyncio.Event()
        self._listening = asyncio.get_running_loop().create_task(self._listen(reader))

    @classmethod
    async def start(cls, target: str, log: str, level: str) -> Child:
        """Start a worker. It shares our terminal, so that a debugger can ask there."""
        ours, theirs = socket.socketpair()
        with theirs:
            order = json.dumps(Order(target, theirs.fileno(), log, level)._asdict())
            environment = {"LINKSPAN_OPENAPI": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
            argv = (sys.executable, "-m", "linkspan.cli.worker", order)
            process = await create_subprocess_exec(*argv, pass_fds=[theirs.fileno()], env=environment)
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            async for line in reader:
                said = json.loads(line)
                if "ready" in said:
                    self.ready.set_result(said["ready"])
                if "draining" in said:
                    self.draining.set()

    def ask_to_end(self) -> None:
        """Ask it to drain and go."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Ask it to end and wait: as long as it is held, and for `GRACE` seconds once it drains."""
        self.ask_to_end()
        draining: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self.draining.wait())
        waiting: list[asyncio.Future[Any]] = [self.ended, draining]
        done, _ = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            _say("The process is held, perhaps at a breakpoint: it ends when it goes on. A second Ctrl-C ends it at once.")
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([self.ended], timeout=GRACE)
        if not self.ended.done():
            _say(f"The process did not end within {GRACE:.0f} s and was killed; what it did not finish comes again.")
            self.kill()
        draining.cancel()
        await self.ended
        self._listening.cancel()
        self._writer.close()


class Dev:
    """The watching process."""

    def __init__(self, target: str, log: str, level: str, *, reload: bool) -> None:
        self._order = (target, log, level)
        self._watch = Watch(Path.cwd()) if reload else None
        self._stopping = asyncio.Event()
        self._child: Child | None = None
        self._broker = ""
        self._lines: list[str] = []
        self._clock = system().clock

    async def run(self) -> int:
        """Go on until Ctrl-C or SIGTERM; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        async with AsyncExitStack() as holding:
            why = ""
            while not self._stopping.is_set():
                began = self._clock.monotonic()
                child = self._child = await Child.start(*self._order)
                if await self._is_up(child):
                    ready = child.ready.result()
                    await self._hold(holding, ready["broker"])
                    self._tell(ready, self._clock.monotonic() - began, why)
                    why = await self._until_saved(child)
                elif self._watch is None:
                    return await child.ended
                if not self._stopping.is_set() and child.ended.done():
                    why = await self._after_end(await child.ended)
                await child.end()
        return 0

    def _signalled(self) -> None:
        if self._stopping.is_set() and self._child is not None:
            self._child.kill()
        self._stopping.set()

    async def _is_up(self, child: Child) -> bool:
        """Wait until it is ready; False where it ended before, or is to end."""
        stopping: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self._stopping.wait())
        waiting: list[asyncio.Future[Any]] = [child.ready, child.ended, stopping]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return child.ready.done()

    async def _hold(self, holding: AsyncExitStack, directory: str) -> None:
        """Use the embedded broker ourselves, so that it outlives the workers."""
        if directory and directory != self._broker:
            from linkspan.brokers.embedded import embedded_nats  # noqa: PLC0415 - only where it is used

            await holding.enter_async_context(embedded_nats(Path(directory)))
            self._broker = directory

    def _tell(self, ready: dict[str, Any], seconds: float, why: str) -> None:
        at = f" at {ready['address']}" if ready["address"] else ""
        _say(f"Ready: {', '.join(ready['services'])}{at} ({f'{why}, ' if why else ''}{seconds:.1f} s)")
        if ready["lines"] != self._lines:
            self._lines = ready["lines"]
            typer.echo("\n".join(f"  {line}" for line in self._lines))
            _say("Ctrl-C ends it." if self._watch is None else "Save a file and it starts anew; Ctrl-C ends it.")

    async def _until_saved(self, child: Child) -> str:
        """Return what was saved, or '' when the process ended or is to end."""
        while not self._stopping.is_set() and not child.ended.done():
            await self._pause(child)
            files = self._saved()
            if files and not child.ended.done():
                return f"{files[0]} was saved"
        return ""

    async def _after_end(self, code: int) -> str:
        """Tell that the process ended by itself, and wait for a save."""
        if self._watch is None:
            self._stopping.set()
            return ""
        _say(f"The process has ended (exit code {code}); it starts anew when a file is saved.")
        while not self._stopping.is_set():
            await self._pause(None)
            files = self._saved()
            if files:
                return f"{files[0]} was saved"
        return ""

    async def _pause(self, child: Child | None) -> None:
        stopping: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self._stopping.wait())
        waiting: list[asyncio.Future[Any]] = [stopping, child.ended] if child else [stopping]
        await asyncio.wait(waiting, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    def _saved(self) -> list[Path]:
        """Return what was saved, unless it cannot be parsed, which is shown."""
        files = self._watch.changed() if self._watch is not None else []
        wrong = [text for text in map(syntax_error, files) if text]
        if wrong:
            typer.echo("\n".join(wrong), err=True)
            _say("Nothing was started anew; mend it and save again.")
            return []
        return files


def _say(text: str) -> None:
    typer.echo(typer.style(text, bold=True))


async def develop(target: str, log: str, level: str, *, reload: bool) -> int:
    """Run the app until told to end; return the exit code."""
    return await Dev(target, log, level, reload=reload).run()
