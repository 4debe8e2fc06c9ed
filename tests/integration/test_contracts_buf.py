"""Exported contracts as `buf` sees them: it lints them, leaves their format alone, and builds the descriptors that we link."""

from __future__ import annotations

import importlib.util
import linecache
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileDescriptorSet

from linkspan.cli.contract_target import load_contracts
from linkspan.contracts.descriptors import descriptor_set
from linkspan.contracts.export import exported

if TYPE_CHECKING:
    from linkspan.contract import Contract

ROOT = Path(__file__).parents[2]
BUF = shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(BUF is None, reason="not run: buf is not installed (pip install buf-bin)")


def buf(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(BUF), *words], cwd=folder, capture_output=True, timeout=60, check=False)


def write(contracts: list[Contract], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in exported(contracts, ["proto"]).items():
        assert isinstance(content, str)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")


def built(folder: Path) -> dict[str, FileDescriptorProto]:
    found = buf(folder, "build", "--as-file-descriptor-set", "--exclude-source-info", "-o", "-")
    assert found.returncode == 0, found.stderr.decode()
    return {file.name: file for file in FileDescriptorSet.from_binary(found.stdout).file}


def assert_buf_agrees(contracts: list[Contract], folder: Path) -> None:
    write(contracts, folder)
    files = descriptor_set(contracts)
    ours, registry = {file.name: file for file in files.file}, files.to_registry()
    theirs = built(folder)
    assert set(ours) == set(theirs)
    for name, file in ours.items():
        if not name.startswith("google/protobuf/"):
            assert theirs[name].to_json(registry=registry) == file.to_json(registry=registry)
    for words in (["lint"], ["format", "-d", "--exit-code"]):
        found = buf(folder, *words)
        assert (found.returncode, found.stdout.decode()) == (0, ""), found.stderr.decode()


TARGETS = [
    "examples.shop.contracts",
    "tests.integration.rest_shop",
    "tests.unit.app_streams",
    "tests.unit.test_json_schema",
    "tests.unit.test_message",
    "tests.unit.test_operation",
    "tests.unit.test_rest_binding",
    "tests.unit.test_validation",
]


@pytest.mark.parametrize("target", TARGETS)
def test_buf_agrees_about(target: str, tmp_path: Path) -> None:
    contracts, _ = load_contracts(target)
    assert_buf_agrees(contracts, tmp_path / "out")


def test_buf_agrees_about_what_the_command_writes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "linkspan.cli",
        "contracts",
        "export",
        "hello",
        "--out",
        str(tmp_path),
        "--format",
        "proto,descriptors",
    ]
    subprocess.run(command, cwd=ROOT / "examples/hello", check=True, capture_output=True, timeout=60)
    assert buf(tmp_path, "lint").returncode == 0
    assert buf(tmp_path, "breaking", "--against", "descriptors.binpb").returncode == 0
    ours = FileDescriptorSet.from_binary((tmp_path / "descriptors.binpb").read_bytes())
    assert {file.name for file in ours.file} == set(built(tmp_path))


# --- contracts that nobody would write

HEAD = """from __future__ import annotations
from typing import *
from linkspan import *
from linkspan.message import *
"""
WORDS = (
    "id",
    "order_id",
    "x9",
    "URL",
    "line2",
    "message",
    "string",
    "option",
    "rpc",
    "to",
    "max",
    "syntax_",
    "google",
    "A",
    "service",
    "oneof1",
)
TYPES = (
    "str",
    "bytes",
    "bool",
    "int",
    "float",
    "Int32",
    "UInt64",
    "SInt32",
    "Fixed64",
    "Float32",
    "Tone",
    "Inner",
    "T0.Inner",
    "T0",
    "Timestamp",
)
MESSAGES = {"Inner", "T0.Inner", "T0", "Timestamp"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"), max_size=40)


@st.composite
def field_lines(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from([word for word in WORDS if not word.endswith("_")]), max_size=6, unique_by=str.lower))
    numbers = draw(st.lists(st.one_of(st.integers(1, 15), st.integers(20_000, 2**29 - 2)), min_size=12, max_size=12, unique=True))
    lines: list[str] = []
    for name in names:
        number, kind = numbers.pop(), draw(st.sampled_from(TYPES))
        form = draw(st.sampled_from(["single", "optional", "list", "map", "oneof"]))
        mark = draw(st.sampled_from(["", ", pii=True"]))
        if form == "list":
            lines.append(f"{name}: list[{kind}] = repeated({number}{mark})")
        elif form == "map":
            lines.append(f"{name}: dict[{draw(st.sampled_from(['str', 'Int32', 'bool']))}, {kind}] = mapping({number}{mark})")
        elif form == "oneof":
            cases = f'Oneof[Literal["{name}_a"], {kind}] | Oneof[Literal["{name}_b"], str] | None'
            lines.append(f"{name}: {cases} = oneof({name}_a={number}, {name}_b={numbers.pop()}{mark})")
        elif form == "optional" or kind in MESSAGES:
            lines.append(f"{name}: {kind} | None = field({number}, default=None{mark})")
        else:
            lines.append(f"{name}: {kind} = field({number}{mark})")
        if draw(st.booleans()):
            lines.append(repr(draw(TEXT)))
    return "\n    ".join(lines) or "pass"


@st.composite
def modules(draw: st.DrawFn) -> str:
    """Draw the text of a contract module."""
    text = "class Tone(Enum, reserved=(7, 9)):\n    UNSPECIFIED = 0\n    LOUD = 5\n    LOW1 = -1\n"
    for number in range(draw(st.integers(1, 3))):
        parent = draw(st.sampled_from(["Message", "Event"]))
        reserved = draw(st.sampled_from(["", ", reserved=(19, 18, 'gone')", ", reserved=(536870911,)"]))
        text += f"class T{number}({parent}{reserved}):\n    {draw(TEXT)!r}\n"
        text += f"    class Inner(Message):\n        own: str = field(1)\n    {draw(field_lines())}\n"
    text += "class A(Message):\n    key: str = field(1, key=True)\n"
    text += f"class Do(ServiceContract):\n    {draw(TEXT)!r}\n"
    for number in range(draw(st.integers(0, 3))):
        answers = draw(
            st.sampled_from(
                ["query(A, A)", "query(A, stream(A), staleness=0.1, budget=1e-9)", "command(A, A, expires=1e18)", "command(A, A)"]
            )
        )
        text += f"    {draw(st.sampled_from(['a', 'do', 't0', 'get_url2']))}{number} = {answers}\n"
    return text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(text=modules(), owner=TEXT)
def test_buf_agrees_about_any_contract(text: str, owner: str, tmp_path: Path) -> None:
    assert_buf_agrees([load(text, owner, tmp_path)], tmp_path / "out")


def load(text: str, owner: str, folder: Path) -> Contract:
    """Import `text` from a file, so that its comments can be read."""
    (folder / "drawn.py").write_text(f"{HEAD}contract = Contract('drawn.v1', owner={owner!r})\n{text}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("drawn", folder / "drawn.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["drawn"] = importlib.util.module_from_spec(spec)
    linecache.checkcache()
    spec.loader.exec_module(module)
    return cast("Contract", module.contract)
