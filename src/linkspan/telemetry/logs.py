"""Structured logs: constant texts, fields beside them, as JSON lines or for the eye. Never payloads, never an exception's text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError
from linkspan.telemetry.fields import fields_of, one_line
from linkspan.telemetry.pretty import PrettyLines, has_colours

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JsonLines", "PlainLines", "check_form", "set_up"]


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, text, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        return json.dumps({**line, **_apart(fields_of(record), line)}, default=str)


def _apart(fields: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Rename fields that would hide what every line has."""
    return {f"{name}_" if name in line else name: value for name, value in fields.items()}


class PlainLines(logging.Formatter):
    """`12:00:00.000 warning linkspan.outbox: Text (field=value ...)`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{name}={one_line(value)}" for name, value in fields_of(record).items())
        return f"{moment} {record.levelname.lower()} {record.name}: {record.getMessage()}" + (f" ({fields})" if fields else "")


def _formatter(form: str) -> logging.Formatter:
    if form == "pretty":
        return PrettyLines(coloured=has_colours(sys.stderr))
    return JsonLines() if form == "json" else PlainLines()


def check_form(form: str, level: str) -> int:
    """Return the number of a level. Raises `SetupError` for a form or level that does not exist."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if not number:
        raise SetupError(f"The log level '{level}' is unknown: use debug, info, warning or error.")
    if form not in {"json", "text", "pretty", "off"}:
        raise SetupError(f"The log form '{form}' is unknown: use json, text, pretty or off.")
    return number


def set_up(form: str, level: str) -> None:
    """Send logs to standard error, as `json`, `text`, `pretty` or not at all (`off`).

    All logs of the process take this form, unless its own code has given the root logger a handler: then only the package's do.
    """
    number = check_form(form, level)
    ours, root = logging.getLogger("linkspan"), logging.getLogger()
    ours.setLevel(number)
    if form == "off":
        ours.addHandler(logging.NullHandler())
        ours.propagate = False
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form))
    if root.handlers:
        ours.addHandler(handler)
        ours.propagate = False
    else:
        root.addHandler(handler)
        root.setLevel(number)
