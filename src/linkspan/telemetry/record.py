"""Keep the last spans of an app in a small file of its data folder, for `linkspan trace`: no collector, no payloads.

A middleware notes when each handler and each call began, how long it took and how it ended. A thread of its own writes them four times a
second into a ring in SQLite, which several processes may share; what the disk cannot take is dropped, since it is not worth waiting for.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from linkspan.errors import Error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.ports import Clock

__all__ = ["Recorder", "Span", "read_spans", "ring_file"]

_log = logging.getLogger("linkspan.traces")

RING = 20_000
"""Spans kept."""
WAITING = 10_000
"""Spans that may wait for the disk; the oldest are dropped beyond."""
PAUSE = 0.25
"""Seconds between two writes."""
MOST = 2_000
"""Spans read of one flow."""

_TABLE = """
create table if not exists spans (
  number integer primary key autoincrement, trace text, span text, parent text, service text, operation text, path text, side text,
  began real, seconds real, attempt integer, code text, id text, correlation text, caller text, sent text
) strict;
create index if not exists spans_trace on spans (trace);
create index if not exists spans_id on spans (id);
create index if not exists spans_correlation on spans (correlation);
"""
_COLUMNS = "trace, span, parent, service, operation, path, side, began, seconds, attempt, code, id, correlation, caller, sent"


class Span(NamedTuple):
    """One handler's run or one call: `began` in seconds since 1970, `code` is `ok` or why it failed, `sent` the ids of its messages."""

    trace: str
    span: str
    parent: str
    service: str
    operation: str
    path: str
    side: str
    began: float
    seconds: float
    attempt: int
    code: str
    id: str
    correlation: str
    caller: str
    sent: str


def ring_file(data: Path) -> Path:
    """Return where the spans of a data folder are."""
    return data / "traces.db"


class Recorder:
    """The middleware that keeps spans: a share of all flows (the same ones in every process), and whatever fails."""

    def __init__(self, file: Path, clock: Clock, *, share: float = 1.0) -> None:
        self._file = file
        self._clock = clock
        self._least = int(share * 0x1_0000_0000)
        self._waiting: deque[Span] = deque(maxlen=WAITING)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Go on, and note how it went."""
        clock, code = self._clock, "ok"
        began, start = clock.now(), clock.monotonic()
        try:
            return await call_next(ctx, request)
        except Error as error:
            code = error.code.value
            raise
        except BaseException as error:
            code = type(error).__name__
            raise
        finally:
            if code != "ok" or int(ctx.trace[27:35], 16) < self._least:
                self._waiting.append(self._span(ctx, began, clock.monotonic() - start, code))

    @staticmethod
    def _span(ctx: Context, began: float, seconds: float, code: str) -> Span:
        trace, parent, tx = ctx.trace, ctx.parent[36:52], ctx.used_tx
        sent = " ".join([message.id for message in tx.unit.messages]) if tx is not None else ""
        return Span(
            trace[3:35],
            trace[36:52],
            parent,
            ctx.service,
            ctx.operation,
            ctx.path.value,
            ctx.side.value,
            began,
            seconds,
            ctx.attempt,
            code,
            ctx.id,
            ctx.correlation,
            ctx.caller,
            sent,
        )

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._write_all, name="linkspan traces", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(5.0)

    def _write_all(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=2.0, isolation_level=None)) as connection:
                connection.execute("pragma journal_mode=wal")
                connection.execute("pragma synchronous=off")
                connection.executescript(_TABLE)
                while not self._stop.wait(PAUSE):
                    self._write(connection)
                self._write(connection)
        except (sqlite3.Error, OSError) as error:
            _log.warning("Traces cannot be kept.", extra={"error": type(error).__name__})

    def _write(self, connection: sqlite3.Connection) -> None:
        spans = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not spans:
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"insert into spans ({_COLUMNS}) values ({', '.join('?' * len(Span._fields))})", spans)  # noqa: S608 - names of ours
        connection.execute("delete from spans where number <= (select max(number) from spans) - ?", (RING,))
        connection.execute("COMMIT")


def read_spans(file: Path, names: Sequence[str]) -> list[Span]:
    """Return the spans of the flows that a trace id, a correlation id or the id of a call or message belongs to, oldest first."""
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as connection:
        marks = ", ".join("?" * len(names))
        where = f"trace in ({marks}) or correlation in ({marks}) or id in ({marks})"
        sent = " or ".join("instr(sent, ?)" for _ in names)
        sql = f"select distinct trace from spans where {where} or {sent} limit 100"  # noqa: S608 - question marks only
        traces = [trace for (trace,) in connection.execute(sql, [*names, *names, *names, *names])]
        if not traces:
            return []
        sql = f"select {_COLUMNS} from spans where trace in ({', '.join('?' * len(traces))}) order by began limit {MOST}"  # noqa: S608 - as above
        return [Span(*row) for row in connection.execute(sql, traces)]
