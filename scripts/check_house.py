"""House rules that no tool knows: sizes, names, injected time and chance, suppressions, paths, and the one named hook.

Run by `make lint`. Standard library only. Each rule is a function from a file to findings;
`tests/unit/test_house.py` shows each of them a faulty snippet.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "src/linkspan/"
MAX_LINES = 500
MAX_DEPTH = 2
BANNED = frozenset({"base", "util", "utils", "helper", "helpers", "manager", "processor", "impl", "common", "data", "info"})
CALLED_BY_LIBRARIES = frozenset({"data_received"})
"""Names that asyncio chose: it calls them on our protocols."""
PAYLOAD = "data"
"""CloudEvents' word for a message's bytes: the one banned word that may stand alone."""
MAKES_RUNTIMES = ("runtime.py", "testing/clock.py", "testing/simulation.py")


@dataclass(frozen=True, slots=True)
class Source:
    """A tracked file: `path` is relative to the project, with forward slashes."""

    path: str
    text: str

    @property
    def in_package(self) -> bool:
        """Tell whether the file ships to users."""
        return self.path.startswith(PACKAGE) and self.path.endswith(".py")

    @property
    def module(self) -> str:
        """Return the path inside the package, such as `stores/sqlite.py`."""
        return self.path.removeprefix(PACKAGE)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule and where; line 0 means the whole file."""

    path: str
    line: int
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.sentence}"


# --- sizes and names ------------------------------------------------------------------------------


def sizes(source: Source) -> Iterator[Finding]:
    """Hold files of the package to 500 lines and to two levels."""
    if not source.in_package:
        return
    lines = len(source.text.splitlines())
    if lines > MAX_LINES:
        yield Finding(source.path, 0, f"The file has {lines} lines: split it, {MAX_LINES} are the most.")
    if len(PurePosixPath(source.module).parts) > MAX_DEPTH:
        yield Finding(source.path, 0, f"The module lies deeper than {MAX_DEPTH} levels: move it up.")


def words(name: str) -> list[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def names(source: Source) -> Iterator[Finding]:
    """Refuse words that say nothing in names of modules, classes and functions."""
    if not source.in_package:
        return
    found = [(0, PurePosixPath(source.path).stem)]
    found += [
        (node.lineno, node.name)
        for node in ast.walk(ast.parse(source.text))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for line, name in found:
        if name != PAYLOAD and name not in CALLED_BY_LIBRARIES and (banned := BANNED.intersection(words(name))):
            yield Finding(source.path, line, f"The name '{name}' holds '{min(banned)}', which says nothing: name what it is for.")


# --- injected time, chance and ids ----------------------------------------------------------------

AMBIENT = {
    "time.time": "clock.now()",
    "time.time_ns": "clock.now()",
    "datetime.now": "clock.now()",
    "datetime.utcnow": "clock.now()",
    "datetime.today": "clock.now()",
    "date.today": "clock.now()",
    "uuid.uuid1": "ids.new()",
    "uuid.uuid4": "ids.new()",
    "uuid4": "ids.new()",
}
"""What a module outside of runtime.py must not name, and what it takes from its `Runtime` instead."""


def ambient(source: Source) -> Iterator[Finding]:
    """Let only those who make runtimes ask the machine for time, chance and ids."""
    if not source.in_package or source.module in MAKES_RUNTIMES:
        return
    tree = ast.parse(source.text)
    for node in _at_run_time(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            instead = AMBIENT.get(".".join(ast.unparse(node).split(".")[-2:]))
        elif isinstance(node, ast.Import):
            instead = "runtime.random" if any(alias.name == "random" for alias in node.names) else None
        elif isinstance(node, ast.ImportFrom):
            instead = _ambient_import(node)
        else:
            continue
        if instead:
            yield Finding(source.path, node.lineno, f"'{ast.unparse(node)}' asks the machine: take {instead} from the Runtime.")


def _ambient_import(node: ast.ImportFrom) -> str | None:
    if node.module == "random":
        return "runtime.random"
    return next((AMBIENT[name] for alias in node.names if (name := f"{node.module}.{alias.name}") in AMBIENT), None)


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what only type checkers see."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children: list[ast.AST] = list(node.orelse)
    else:
        yield node
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _at_run_time(child)


# --- the named hook -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A call after which the world has changed: a commit, a publish or an ack.

    `module` is a glob inside the package; `call` matches the whole text before the bracket; `argument`, where given,
    must be found in the text of the arguments.
    """

    kind: str
    module: str
    call: str
    argument: str = ""


POINTS = (
    Point("commit", "stores/*.py", r".*execute(script|many)?", r"(?i)^f?['\"]\s*(COMMIT|END)\b"),
    Point("commit", "stores/*.py", r".*", r"^_?([A-Z]+_)?COMMIT$"),
    Point("commit", "stores/*.py", r".*(connection|conn|db|database)\.commit"),
    Point("publish", "*.py", r"(.*\.)?_?broker\.publish(_batch)?"),
    Point("publish", "brokers/memory.py", r"self\._store"),
    Point("publish", "brokers/nats.py", r"self\._send|(.*\.)?_?(js|jetstream)\.publish(_async)?"),
    Point("ack", "brokers/memory.py", r"group\.settle"),
    Point("ack", "brokers/nats_consumer.py", r".*\.link\.ack|.*\.late_ack|(.*\.)?(msg|message)\.(ack|ack_sync)"),
)
"""Every commit, publish and ack of the package is made by one of these calls, in a function that names its point with `reached`.

They stand where the effect leaves the process: commits in the stores, acks in the brokers (`Delivery.ack` of the core ends there),
publishes in both, because between the relay's call and the broker's bytes lies a queue.
"""

POINT_NAME = re.compile(r"[a-z_]+\.[a-z_]+\.(before|after)")


def hooks(source: Source) -> Iterator[Finding]:
    """Find commits, publishes and acks that no crash test can stop at, and points with malformed names."""
    if not source.in_package:
        return
    for function in ast.walk(ast.parse(source.text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [node for node in _own(function) if isinstance(node, ast.Call)]
        reached = [call for call in calls if _is_hook(call)]
        for call in reached:
            yield from _badly_named(source, call)
        for call in calls:
            kind = next((point.kind for point in POINTS if is_at(source.module, call, point)), None)
            if kind and not reached:
                said = ast.unparse(call.func)
                sentence = (
                    f"'{function.name}' makes a {kind} by '{said}' without runtime.reached(...): name the points before and after it."
                )
                yield Finding(source.path, call.lineno, sentence)


def pairs(sources: list[Source]) -> Iterator[Finding]:
    """Ask of each point on the way in that there is one on the way out, and the other way round."""
    found = {name: (source.path, call.lineno) for source in sources if source.in_package for call, name in _named(source)}
    for name, (path, line) in found.items():
        stem, _, side = name.rpartition(".")
        twin = f"{stem}.{'after' if side == 'before' else 'before'}"
        if twin not in found:
            yield Finding(path, line, f"The point '{name}' has no '{twin}': a crash is tried on both sides.")


def _named(source: Source) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Call) and _is_hook(node) and node.args and isinstance(node.args[0], ast.Constant):
            yield node, str(node.args[0].value)


def _is_hook(call: ast.Call) -> bool:
    return re.fullmatch(r"(.*\.)?_?reached", ast.unparse(call.func)) is not None


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Walk a function's body without the functions defined in it; those are looked at by themselves."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
            yield from _own(child)


def is_at(module: str, call: ast.Call, point: Point) -> bool:
    """Tell whether a call in a module is one of a point's."""
    if not PurePosixPath(f"/{module}").match(f"/{point.module}") or not re.fullmatch(point.call, ast.unparse(call.func)):
        return False
    return not point.argument or any(re.search(point.argument, ast.unparse(argument)) for argument in call.args)


def _badly_named(source: Source, call: ast.Call) -> Iterator[Finding]:
    said = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if not (isinstance(said, str) and POINT_NAME.fullmatch(said)):
        yield Finding(
            source.path, call.lineno, "The point is not a literal '<noun>.<verb>.before' or '.after': crash tests find it by that name."
        )


# --- suppressions, hosts and paths ----------------------------------------------------------------

SUPPRESSION = re.compile(r"#\s*(?:ruff:\s*|flake8:\s*)?noqa\b|#\s*type:\s*ignore\b|#\s*pyright:\s*(?:ignore|basic)\b|#\s*mypy:\s*ignore")
REASONED = re.compile(
    r"#\s*(?:ruff:\s*)?noqa:\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*\s+(?:-|#)\s*\S.{5,}"
    r"|#\s*(?:type|pyright):\s*ignore\[[\w, -]+\]\s*(?:-|#)\s*(?!pyright|type|noqa)\S.{5,}"
    r"|#\s*(?:type|pyright):\s*ignore\[[\w, -]+\]\s*#\s*(?:pyright:\s*ignore\[[\w, -]+\]|noqa:[\w, ]+)\s*(?:-|#)\s*\S.{5,}"
)


CODED = re.compile(r"#\s*type:\s*ignore\[[\w, -]+\]$")
"""Enough in tests, where a wrong type is passed on purpose and the test's name says so."""


def suppressions(source: Source) -> Iterator[Finding]:
    """Ask of each suppressed finding which one and why."""
    if not source.path.endswith((".py", ".pyi")):
        return
    enough = (REASONED, CODED) if source.path.startswith("tests/") else (REASONED,)
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and SUPPRESSION.search(token.string) and not any(form.search(token.string) for form in enough):
            yield Finding(
                source.path,
                token.start[0],
                "A suppression needs its code and a reason: '# noqa: S608 - why' or '# type: ignore[misc]  # why'.",
            )


PLACES = (
    (
        re.compile(r"files\.pythonhosted|pypi\.(?:org|python)|registry\.(?:npmjs|yarnpkg)|proxy\.golang|--(?:extra-)?index-url\b"),
        "a package registry",
    ),
    (re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/[\w.]"), "a path of one machine"),
)
BESIDE = re.compile(r"\.\./shared\b")
MAY_NAME_PLACES = ("scripts/check_house.py", "tests/unit/test_house.py")


def places(source: Source) -> Iterator[Finding]:
    """Keep hosts of registries and paths of a machine out of every file."""
    if source.path in MAY_NAME_PLACES:
        return
    for number, line in enumerate(source.text.splitlines(), 1):
        for pattern, what in PLACES:
            if pattern.search(line):
                yield Finding(source.path, number, f"The line names {what}: the project must not know where it is built.")
        if source.path != ".ci/run" and BESIDE.search(line):
            yield Finding(source.path, number, "Only .ci/run may know the folder beside the clone: read LINKSPAN_ORDERS_CSV.")


# --- run ------------------------------------------------------------------------------------------

RULES: tuple[Callable[[Source], Iterator[Finding]], ...] = (sizes, names, ambient, hooks, suppressions, places)


def tracked() -> Iterator[Source]:
    """Read the text files that git knows or would add."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True)  # noqa: S607 - git is found where the user has it
    for path in sorted(set(listed.stdout.decode().split("\0")) - {""}):
        file = ROOT / path
        if file.is_file():
            try:
                yield Source(path, file.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue


def main() -> int:
    """Print the findings of all rules and return 1 if there are any."""
    sources = list(tracked())
    findings = [finding for source in sources for rule in RULES for finding in rule(source)] + list(pairs(sources))
    for finding in findings:
        print(finding)
    print(f"{len(sources)} files, {len(RULES) + 1} house rules, {len(findings)} findings.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
