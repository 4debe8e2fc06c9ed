"""Log lines: constant text, fields beside it, one line each, never an exception's text."""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import SetupError
from linkspan.telemetry.logs import JsonLines, PlainLines, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "CANARY-4711"


def record(text: str, *, failing: bool = False, **fields: Any) -> logging.LogRecord:
    made = logging.getLogger("linkspan.test").makeRecord("linkspan.test", logging.WARNING, "file", 1, text, (), None, extra=fields)
    made.created = 0.125
    if failing:
        try:
            int(CANARY)
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


def test_json_line_holds_text_and_fields() -> None:
    line = json.loads(JsonLines().format(record("Held.", service="mail", attempt=3, when=object)))

    assert line == {
        "time": "1970-01-01T00:00:00.125+00:00",
        "level": "warning",
        "logger": "linkspan.test",
        "text": "Held.",
        "service": "mail",
        "attempt": 3,
        "when": "<class 'object'>",
    }


def test_plain_line_is_for_the_eye() -> None:
    assert PlainLines().format(record("Held.", service="mail")) == "00:00:00.125 warning linkspan.test: Held. (service=mail)"
    assert PlainLines().format(record("Held.")) == "00:00:00.125 warning linkspan.test: Held."


@pytest.mark.parametrize("form", [JsonLines(), PlainLines()])
def test_line_is_one_line_whatever_a_field_holds(form: logging.Formatter) -> None:
    line = form.format(record("Held.", type="a\nb\x1b[31m"))

    assert line.isprintable()


@pytest.mark.parametrize("form", [JsonLines(), PlainLines()])
def test_exception_is_named_without_its_text(form: logging.Formatter) -> None:
    line = form.format(record("Failed.", failing=True))

    assert CANARY not in line
    assert "ValueError" in line
    assert "test_logs.py" in line


def test_field_cannot_hide_what_every_line_has() -> None:
    line = json.loads(JsonLines().format(record("Held.", time="now", level="none")))

    assert (line["time"], line["level"], line["time_"], line["level_"]) == ("1970-01-01T00:00:00.125+00:00", "warning", "now", "none")


@contextmanager
def logging_to_text() -> Iterator[io.StringIO]:
    """Give the loggers back as they were; pytest's own handlers stand aside meanwhile."""
    ours, root = logging.getLogger("linkspan"), logging.getLogger()
    before = [(each, list(each.handlers), each.level, each.propagate) for each in (ours, root)]
    root.handlers, ours.handlers = [], []
    try:
        with redirect_stderr(io.StringIO()) as said:
            yield said
    finally:
        for each, handlers, level, propagate in before:
            each.handlers, each.propagate = handlers, propagate
            each.setLevel(level)


def test_all_logs_of_the_process_take_the_form() -> None:
    with logging_to_text() as said:
        set_up("json", "warning")
        logging.getLogger("linkspan.test").warning("Ours.")
        logging.getLogger("linkspan.test").info("Too quiet.")
        logging.getLogger("asyncio").error("Somebody's.")

    assert [json.loads(line)["text"] for line in said.getvalue().splitlines()] == ["Ours.", "Somebody's."]


def test_own_handlers_of_a_program_stay_as_they_are() -> None:
    theirs = io.StringIO()
    with logging_to_text() as said:
        logging.getLogger().addHandler(logging.StreamHandler(theirs))
        set_up("text", "info")
        logging.getLogger("linkspan.test").info("Ours.")
        logging.getLogger("theirs").warning("Theirs.")

    assert said.getvalue().endswith("info linkspan.test: Ours.\n")
    assert theirs.getvalue() == "Theirs.\n"


def test_off_is_silent() -> None:
    with logging_to_text() as said:
        set_up("off", "info")
        logging.getLogger("linkspan.test").error("Ours.")

    assert said.getvalue() == ""


@pytest.mark.parametrize(("form", "level", "sentence"), [("xml", "info", "log form 'xml'"), ("json", "loud", "log level 'loud'")])
def test_unknown_form_or_level_is_refused(form: str, level: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=f"The {sentence} is unknown: use "):
        set_up(form, level)
