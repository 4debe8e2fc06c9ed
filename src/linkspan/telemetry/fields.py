"""What a log record says beside its text."""

from __future__ import annotations

import logging
from traceback import extract_tb
from typing import Any

__all__ = ["fields_of", "one_line"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`, and of an exception its type and where it came from: its text may hold payload."""
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", type(record.exc_info[1]).__name__)
        fields.setdefault("stack", _stack(record.exc_info[1]))
    return fields


def _stack(error: BaseException) -> str:
    steps = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)]
    return " < ".join(reversed(steps))


def one_line(value: object) -> str:
    """Return a value as text that stays on its line."""
    text = str(value)
    return text if text.isprintable() else repr(text)
