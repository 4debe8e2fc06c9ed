"""Logs for people who develop: aligned, coloured where the terminal can."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from linkspan.telemetry.fields import fields_of, one_line

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["PrettyLines", "has_colours"]

_COLOURS = {logging.DEBUG: "2", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}


def has_colours(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that shows colours and whose user wants them (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"


class PrettyLines(logging.Formatter):
    """`12:00:00.000 warning  Text  field=value`, local time, fields dimmed."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = self._paint(f"{record.levelname.lower():<8}", _COLOURS.get(record.levelno, "0"))
        fields = "  ".join(f"{name}={one_line(value)}" for name, value in fields_of(record).items())
        return f"{self._paint(moment, '2')} {level} {record.getMessage()}" + (f"  {self._paint(fields, '2')}" if fields else "")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text
