"""What the current folder holds: its app, found without importing anything, and the traces of a running `linkspan dev`."""

from __future__ import annotations

import ast
import json
import os
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from linkspan.cli.watch import syntax_error
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DevSession", "found_target", "read_session", "session_file"]


def found_target(folder: Path) -> str:
    """Return the app of a folder as `module:attribute`: what pyproject.toml names, or the one `App(...)` in its modules.

    Raises `SetupError` when there is none, or more than one.
    """
    named = _named(folder)
    if named:
        return named
    found = [target for file in sorted(folder.glob("*.py")) for target in _apps(file)]
    if not found:
        broken = next((file.name for file in sorted(folder.glob("*.py")) if syntax_error(file)), "")
        if broken:
            raise SetupError(f"There is no App in this folder that can be read, and '{broken}' cannot be parsed: mend it, or name the app.")
        raise SetupError("There is no App in the modules of this folder: name it as module:attribute, or go to the folder that holds it.")
    if len(found) > 1:
        raise SetupError(f"There are several apps in this folder: name one of {', '.join(found)}.")
    return found[0]


def _named(folder: Path) -> str:
    try:
        settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise SetupError(
            f"'pyproject.toml' cannot be read ({type(error).__name__}): mend it, or name the app as module:attribute."
        ) from error
    tools = cast("dict[str, Any]", settings.get("tool", {}))
    target = tools.get("linkspan", {}).get("app", "")
    if not isinstance(target, str):
        raise SetupError("'app' of [tool.linkspan] in 'pyproject.toml' is no text: write app = \"module:attribute\".")
    return target


def _apps(file: Path) -> Iterator[str]:
    """Find `name = App(...)` at the top of a module; a module that cannot be parsed has none."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) in {"App", "linkspan.App"}:
            yield from (f"{file.stem}:{target.id}" for target in targets if isinstance(target, ast.Name))


class DevSession(NamedTuple):
    """What a running `linkspan dev` tells the other commands of its folder."""

    address: str
    pid: int


def session_file(data: Path) -> Path:
    """Return where `linkspan dev` writes itself down."""
    return data / "dev.json"


def read_session(data: Path) -> DevSession | None:
    """Return the `linkspan dev` that runs on a data folder, if one does."""
    try:
        found = DevSession(**json.loads(session_file(data).read_text(encoding="utf-8")))
        os.kill(found.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return found
