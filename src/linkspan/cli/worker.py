"""The process that `linkspan dev` starts anew after each save: the app, on a loop whose time rests while it is held.

Process entry: `python -m linkspan.cli.worker ORDER`, where ORDER is JSON. One socket ties it to its parent. The worker writes lines of
JSON: what is `ready`, and that it is `draining`; the parent writes nothing, and the end of its side means: drain and go.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from linkspan.cli.folder import session_file
from linkspan.cli.lines import first_lines
from linkspan.cli.recorded import recorded
from linkspan.cli.resting import RestingClock, RestingLoop
from linkspan.cli.target import load_app
from linkspan.errors import Error, SetupError
from linkspan.runtime import SystemClock
from linkspan.telemetry.logs import set_up

if TYPE_CHECKING:
    from linkspan.app import App

__all__ = ["WRONG", "Order", "main"]

WRONG = 2
"""Exit code of a wrong declaration or setting."""
ACK_WAIT = 86_400.0
"""Seconds until the embedded broker hands an unsettled message to somebody else: as long as a person may stand at a breakpoint."""
_INSIDE = (str(Path(__file__).parents[1]) + os.sep, importlib.__file__ or "", "<frozen ")


class Order(NamedTuple):
    """What the parent asks for; `channel` is the number of the socket."""

    target: str
    channel: int
    log: str
    level: str


def main() -> None:
    """Load the app and run it until the parent, a signal or an error ends it."""
    order = Order(**json.loads(sys.argv[1]))
    channel = socket.socket(fileno=order.channel)
    channel.setblocking(False)
    try:
        set_up(order.log, order.level)
        app = load_app(order.target)
        with asyncio.Runner(loop_factory=RestingLoop) as runner:
            runner.run(_Worker(app, order, channel).run())
    except SetupError as error:
        sys.stderr.write(f"linkspan: {error}\n")
        sys.exit(WRONG)
    except Error as error:
        sys.stderr.write(f"linkspan: {error.message} ({error.code.value})\n")
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises, they want to see where
        sys.stderr.write(_told(error))
        sys.exit(1)


def _told(error: Exception) -> str:
    """Return a traceback without the frames of linkspan and of Python's import."""
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not frame.filename.startswith(_INSIDE)])
    return "".join(told.format())


class _Worker:
    """One run of the app."""

    def __init__(self, app: App, order: Order, channel: socket.socket) -> None:
        self._app = app
        self._order = order
        self._channel = channel
        self._stop = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Start, serve until told to end, drain."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._settle_for(loop)
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        ending = loop.create_task(self._until_told(reader))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        session = session_file(self._app.data)
        recorder = recorded(self._app)
        try:
            await self._app.start()
            session.write_text(json.dumps({"address": self._app.address, "pid": os.getpid()}), encoding="utf-8")
            self._say(ready=self._ready())
            await self._stop.wait()
            self._say(draining=True)
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        finally:
            session.unlink(missing_ok=True)
            ending.cancel()
            await self._app.aclose()
            recorder.close()
            self._writer.close()

    def _settle_for(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the app a clock that rests, unless it brought its own, and a patient broker."""
        assert isinstance(loop, RestingLoop)  # noqa: S101 - the runner was told so
        if type(self._app.runtime.clock) is SystemClock:
            self._app.runtime = replace(self._app.runtime, clock=RestingClock(loop))
        self._app.ack_wait = ACK_WAIT

    async def _until_told(self, reader: asyncio.StreamReader) -> None:
        await reader.read()
        if not self._app.started.is_set() and self._task is not None:
            self._task.cancel()
        self._stop.set()

    def _signalled(self) -> None:
        """Drain at the first signal; a second one, or one while starting, ends it at once."""
        if self._task is not None and (self._stop.is_set() or not self._app.started.is_set()):
            self._task.cancel()
        self._stop.set()

    def _ready(self) -> dict[str, Any]:
        app = self._app
        return {
            "services": list(app.running),
            "address": app.address,
            "broker": str(app.embedded.directory) if app.embedded is not None else "",
            "lines": first_lines(app, self._order.target),
        }

    def _say(self, **line: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
