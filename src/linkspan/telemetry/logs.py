"""Structured logs: constant texts, fields beside them, as JSON lines or for the eye. Never payloads."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from linkspan.errors import SetupError

__all__ = ["JsonLines", "PlainLines", "set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, text, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PlainLines(logging.Formatter):
    """`12:00:00.000 warning linkspan.outbox: Text (field=value ...)`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        text = f"{moment} {record.levelname.lower()} {record.name}: {record.getMessage()}" + (f" ({fields})" if fields else "")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(form: str, level: str) -> None:
    """Send the package's logs to standard error, as `json`, `text` or not at all (`off`)."""
    logger = logging.getLogger("linkspan")
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise SetupError(f"The log level '{level}' is unknown: use debug, info, warning or error.")
    if form == "off":
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        return
    if form not in {"json", "text"}:
        raise SetupError(f"The log form '{form}' is unknown: use json, text or off.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    logger.addHandler(handler)
    logger.setLevel(number)
    logger.propagate = False
