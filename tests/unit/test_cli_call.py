"""`linkspan call`: finding the operation, reading the request, where it goes, and what comes out."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from linkspan import (
    App,
    Code,
    Context,
    Contract,
    Duration,
    Enum,
    Error,
    Message,
    Service,
    ServiceContract,
    SetupError,
    Timestamp,
    command,
    field,
    mapping,
    query,
    repeated,
    stream,
)
from linkspan.cli import main
from linkspan.cli.call import prepare
from linkspan.cli.commands import cli
from linkspan.cli.folder import found_target
from linkspan.cli.operations import find_operation
from linkspan.cli.sample import sample_json
from linkspan.message import decode_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

contract = Contract("calling.v1")


class Colour(Enum):
    UNKNOWN = 0
    RED = 1


class Inner(Message):
    text: str = field(1)


class Rich(Message):
    order_id: str = field(1, key=True)
    raw: bytes = field(2)
    number: int = field(3)
    ratio: float = field(4)
    inner: Inner | None = field(5, default=None)
    inners: list[Inner] = repeated(6)
    named: dict[str, Inner] = mapping(7)
    moment: Timestamp | None = field(8, default=None)
    span: Duration | None = field(9, default=None)
    colour: Colour = field(10)
    really: bool = field(11)
    texts: list[str] = repeated(12)


class Answer(Message):
    text: str = field(1)
    number: int = field(2)


class First(ServiceContract):
    ask = command(Rich, Answer)
    only_here = query(Inner, Answer)
    count = query(Inner, stream(Answer))
    collect = query(stream(Inner), Answer)


class Second(ServiceContract):
    ask = command(Inner, Answer)


OPERATIONS = [*First.operations, *Second.operations]

# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        "calling.v1.First.OnlyHere",
        "/calling.v1.First/OnlyHere",
        "First.OnlyHere",
        "OnlyHere",
        "only_here",
        "First.only_here",
        "calling.v1.First.only_here",
    ],
)
def test_operation_is_found_by_each_of_its_names(name: str) -> None:
    assert find_operation(OPERATIONS, name) is First.only_here


def test_name_of_two_is_refused_with_both() -> None:
    with pytest.raises(SetupError, match=r"'ask' is not unique: name one of calling.v1.First.Ask, calling.v1.Second.Ask"):
        find_operation(OPERATIONS, "ask")
    assert find_operation(OPERATIONS, "Second.ask") is Second.ask


def test_unknown_name_is_refused_with_what_is_near() -> None:
    with pytest.raises(SetupError, match=r"'onlyhere' is not known: name one of calling.v1.First.OnlyHere\."):
        find_operation(OPERATIONS, "onlyhere")
    with pytest.raises(SetupError, match=r"'zzz' is not known: name one of calling.v1.First.Ask, "):
        find_operation(OPERATIONS, "zzz")
    with pytest.raises(SetupError, match="there is none here"):
        find_operation([], "ask")


def test_sample_fills_every_field_and_is_accepted() -> None:
    sample = sample_json(Rich)

    assert set(json.loads(sample)) == {member.json_name for member in Rich.desc().fields}
    read = decode_json(Rich, sample, ignore_unknown_fields=False)
    assert (read.order_id, read.colour, read.inner) == ("7", Colour.RED, Inner(text="7"))


# --- the app of a folder ---


def test_app_is_found_in_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.linkspan]\napp = "shop.main:app"\n')
    assert found_target(tmp_path) == "shop.main:app"


def test_app_is_found_by_its_assignment(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "broken.py").write_text("this is no python")
    (tmp_path / "other.py").write_text("app = make(App())\n")
    (tmp_path / "shop.py").write_text("import linkspan\nmain: object = linkspan.App()\n")
    assert found_target(tmp_path) == "shop:main"


def test_folder_with_no_app_or_several_says_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="There is no App in the modules of this folder"):
        found_target(tmp_path)
    (tmp_path / "a.py").write_text("app = = App()\n")
    with pytest.raises(SetupError, match=r"and 'a\.py' cannot be parsed: mend it"):
        found_target(tmp_path)
    (tmp_path / "a.py").write_text("app = App()\n")
    (tmp_path / "b.py").write_text("app = App()\n")
    with pytest.raises(SetupError, match="several apps in this folder: name one of a:app, b:app"):
        found_target(tmp_path)


@pytest.mark.parametrize("text", ["[tool", "[tool.linkspan]\napp = 7\n"])
def test_wrong_pyproject_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(SetupError, match=r"pyproject.toml"):
        found_target(tmp_path)


# --- what is asked, and where ---

SOURCE = """
from linkspan import App, Service
from tests.unit.test_cli_call import First, answer, collect, count, only
one = Service("one", First)
one.handles(First.ask)(answer)
one.handles(First.only_here)(only)
one.handles(First.count)(count)
one.handles(First.collect)(collect)
app = App(one, broker="memory://", http="127.0.0.1:{port}", data="{data}")
"""


async def answer(ctx: Context, request: Rich) -> Answer:
    if request.number == 13:
        raise Error(Code.FAILED_PRECONDITION, "There is no 13: take another.")
    return Answer(text=f"{request.order_id} {ctx.key} {ctx.caller}", number=0)


async def count(ctx: Context, request: Inner) -> AsyncIterator[Answer]:
    for number in range(3):
        yield Answer(text=request.text, number=number)


async def collect(ctx: Context, requests: AsyncIterator[Inner]) -> Answer:
    return Answer(text=" ".join([each.text async for each in requests]))


async def only(ctx: Context, request: Inner) -> Answer:
    return Answer(text=request.text)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "calling_app.py").write_text(SOURCE.format(port=8099, data=tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "calling_app", raising=False)
    return tmp_path


def ready(operation: str, text: str, **options: Any) -> Any:
    return prepare(operation, text, **{"app": "", "address": "", "timeout": None, "key": "", "headers": [], **options})


def test_request_comes_from_argument_file_and_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "request.json").write_text('{"text": "from a file"}')
    assert ready("only_here", '{"text": "x"}').requests == [Inner(text="x")]
    assert ready("only_here", "@request.json").requests == [Inner(text="from a file")]
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "piped"}'))
    assert ready("only_here", "-").requests == [Inner(text="piped")]


def test_address_is_the_given_one_or_the_apps(here: Path) -> None:
    assert ready("only_here", "{}").address == "http://127.0.0.1:8099"
    assert ready("only_here", "{}", address="http://localhost:1").address == "http://localhost:1"
    assert ready("only_here", "{}", app="calling_app:app", timeout=2.0).timeout == 2.0


def test_operation_of_an_imported_contract_needs_an_address(here: Path) -> None:
    (here / "elsewhere.py").write_text("from tests.unit.test_cli_call import Second\n")
    with pytest.raises(SetupError, match=r"Nothing says where 'calling.v1.Second.Ask' answers: give --address"):
        ready("ask", "{}", app="elsewhere")
    assert ready("ask", "{}", app="elsewhere", address="http://localhost:1").operation is Second.ask


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ('{"text":', {}, r"The request is no JSON \(expecting value at line 1, column 9\): write it like"),
        ("[]", {}, "The request is no JSON object: write it like"),
        ('{"txt": "x"}', {}, "'calling.v1.Inner' has no field 'txt': it has text"),
        ('{"text": 7}', {}, "The request is no calling.v1.Inner: write it like"),
        ("@nowhere.json", {}, "The request '@nowhere.json' cannot be read"),
        ("{}", {"timeout": 0.0}, "The timeout '0' cannot be waited"),
        ("{}", {"timeout": -1.0}, "The timeout '-1' cannot be waited"),
        ("{}", {"headers": ["nothing"]}, "The header 'nothing' has no value"),
        ("{}", {"address": "nonsense"}, "nonsense"),
        ("{}", {"app": "nowhere"}, "There is no module 'nowhere' here"),
        ("{}", {"app": "calling_app:one"}, "is not an App"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(text: str, options: dict[str, Any], sentence: str, here: Path) -> None:
    with pytest.raises(SetupError, match=sentence):
        ready("only_here", text, **options)


# --- whole ---


@pytest.fixture
def serving(here: Path) -> Iterator[str]:
    """Run the app in a thread; the calls come from this one."""
    address: list[str] = []
    up, down = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        one = Service("one", First)
        one.handles(First.ask)(answer)
        one.handles(First.only_here)(only)
        one.handles(First.count)(count)
        one.handles(First.collect)(collect)
        async with App(one, broker="memory://", http="127.0.0.1:0", data=here / "data") as app:
            address.append(app.address)
            up.set()
            await down.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(20)
    yield address[0]
    loop.call_soon_threadsafe(down.set)
    thread.join(20)
    loop.close()


def invoke(*words: str) -> Any:
    return CliRunner().invoke(cli, ["call", *words])


def test_answer_is_one_line_of_json_with_every_field(serving: str) -> None:
    done = invoke("only_here", '{"text": "hello"}', "--address", serving, "--timeout", "10")

    assert (done.exit_code, done.stdout) == (0, '{"text":"hello","number":"0"}\n')


def test_key_header_and_trace_travel(serving: str) -> None:
    done = invoke("First.ask", '{"orderId": "7"}', "--address", serving, "--key", "k1", "--header", "linkspan-caller: me", "--show-trace")

    assert json.loads(done.stdout)["text"] == "7 k1 me"
    assert done.stderr.startswith("trace ")
    assert len(done.stderr.split()[1]) == 32


def test_stream_is_one_answer_a_line(serving: str) -> None:
    done = invoke("count", '{"text": "n"}', "--address", serving)

    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"text": "n", "number": str(number)} for number in range(3)]


@pytest.mark.parametrize("text", ['[{"text": "a"}, {"text": "b"}]', '{"text": "a"}\n\n{"text": "b"}\n'])
def test_several_requests_are_an_array_or_lines(text: str, serving: str) -> None:
    assert json.loads(invoke("collect", text, "--address", serving).stdout)["text"] == "a b"


def test_error_of_the_other_side_is_told_with_its_code(
    serving: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["linkspan", "call", "First.ask", '{"number": 13}', "--address", serving])
    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    assert capsys.readouterr() == ("", "linkspan: There is no 13: take another. (failed_precondition)\n")


def test_nobody_there_is_unavailable(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["linkspan", "call", "only_here", "{}", "--address", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    assert "(unavailable)" in capsys.readouterr().err
