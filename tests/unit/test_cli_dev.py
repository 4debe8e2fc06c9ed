"""The parts of `linkspan dev`: time that rests while the loop is held, the watch on files, pretty logs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from linkspan import SetupError
from linkspan.cli.commands import cli
from linkspan.cli.dev import check_target
from linkspan.cli.folder import read_session, session_file
from linkspan.cli.resting import PULSE, RestingClock, RestingLoop, RestingTime
from linkspan.cli.watch import Watch, syntax_error
from linkspan.telemetry.pretty import PrettyLines, has_colours

# --- time that rests ---


class Source:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_time_goes_on_while_somebody_looks_and_rests_while_nobody_does() -> None:
    source = Source()
    seconds = RestingTime(source)
    source.at += 0.5
    assert seconds() == 100.5
    source.at += 60
    assert seconds() == pytest.approx(100.5 + PULSE)
    source.at += 0.5
    assert seconds() == pytest.approx(101 + PULSE)
    assert seconds.rested == pytest.approx(60 - PULSE)


def test_other_threads_see_the_time_rest_too_and_do_not_make_it_go_on() -> None:
    source = Source()
    seconds = RestingTime(source)
    seen: list[float] = []
    source.at += 30
    for _ in range(2):
        thread = threading.Thread(target=lambda: seen.append(seconds()))
        thread.start()
        thread.join()
        source.at += 0.5
    assert seen == pytest.approx([100 + PULSE, 100 + PULSE])
    assert seconds() == pytest.approx(100 + PULSE)


def test_no_timer_of_the_loop_passes_while_it_is_held(caplog: pytest.LogCaptureFixture) -> None:
    """A held loop is one that blocks; real seconds, since that is what is promised."""

    async def held() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RestingLoop)
        clock = RestingClock(loop)
        due: asyncio.Future[float] = loop.create_future()
        began = clock.monotonic()
        clock.call_later(1.0, lambda: due.set_result(clock.monotonic()))
        async with asyncio.timeout(1.5):
            await asyncio.sleep(0)
            real = time.monotonic()
            time.sleep(2.0)  # noqa: ASYNC251 - this is the breakpoint
            fired = await due
        return fired - began, time.monotonic() - real

    caplog.set_level(logging.WARNING, "linkspan.dev")
    with asyncio.Runner(loop_factory=RestingLoop) as runner:
        rested, real = runner.run(held())

    assert 1.0 <= rested < 1.5
    assert real > 2.5
    assert [record.message for record in caplog.records] == ["The event loop was held; deadlines have rested meanwhile."]


# --- files ---


def test_saved_added_and_removed_files_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("a = 1")
    (tmp_path / "gone.sql").write_text("select 1")
    watch = Watch(tmp_path)
    assert watch.changed() == []

    (tmp_path / "shop.py").write_text("a = 10")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "new.py").write_text("")
    (tmp_path / "gone.sql").unlink()

    assert watch.changed() == [Path("deeper/new.py"), Path("gone.sql"), Path("shop.py")]
    assert watch.changed() == []


@pytest.mark.parametrize("name", ["test_shop.py", "notes.txt", ".venv/x.py", "env/x.py", "__pycache__/x.py", "node_modules/x.py"])
def test_what_no_app_is_made_of_is_left_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "env").mkdir(exist_ok=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    watch = Watch(tmp_path)
    (tmp_path / name).write_text("a = 1")

    assert watch.changed() == []


def test_syntax_error_is_shown_with_its_line(tmp_path: Path) -> None:
    wrong, right, nothing = tmp_path / "wrong.py", tmp_path / "right.py", tmp_path / "nothing.py"
    wrong.write_text("a = 1\ndef (\n")
    right.write_text("a = 1\n")

    assert "line 2" in syntax_error(wrong)
    assert syntax_error(right) == syntax_error(nothing) == syntax_error(tmp_path / "x.sql") == ""


# --- what it refuses, before anything starts ---


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("shop", "names no app"), ("nowhere_at_all:app", "There is no module 'nowhere_at_all' here"), (".shop:app", "names no app")],
)
def test_wrong_target_is_refused(target: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        check_target(target)


@pytest.mark.parametrize("words", [("--log", "loud"), ("--level", "loud")])
def test_wrong_logs_are_refused(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["dev", "x:app", *words])

    assert isinstance(done.exception, SetupError)
    assert "'loud' is unknown" in str(done.exception)


# --- the session of a folder ---


def test_session_counts_while_its_process_lives(tmp_path: Path) -> None:
    assert read_session(tmp_path) is None
    session_file(tmp_path).write_text(f'{{"address": "http://127.0.0.1:1", "pid": {os.getpid()}}}')
    assert read_session(tmp_path) == ("http://127.0.0.1:1", os.getpid())
    for text in ('{"address": "http://127.0.0.1:1", "pid": 4194399}', "{}", "no json", '{"other": 1}'):
        session_file(tmp_path).write_text(text)
        assert read_session(tmp_path) is None


# --- logs ---


def record() -> logging.LogRecord:
    made = logging.LogRecord("linkspan.x", logging.WARNING, "x.py", 1, "Something.", (), None)
    made.service = "orders"
    made.note = "two\nlines"
    return made


def test_pretty_line_is_one_line_with_its_fields() -> None:
    text = PrettyLines(coloured=False).format(record())

    assert text[12:] == " warning  Something.  service=orders  note='two\\nlines'"


def test_colours_are_for_terminals_whose_user_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal: Any = Terminal()
    assert has_colours(terminal)
    assert not has_colours(StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colours(terminal)
    assert "\x1b[33mwarning" in PrettyLines(coloured=True).format(record())
