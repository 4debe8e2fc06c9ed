"""Lines to copy and paste: how to call what an app serves, and how to look at what it does."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from linkspan.cli.operations import find_operation, operations_of
from linkspan.cli.sample import sample_json
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from linkspan.app import App

__all__ = ["first_lines", "spoken"]


def spoken() -> str:
    """Return how the shell finds this `linkspan`; one that uv keeps in its cache is started in the project's own environment instead."""
    ours = Path(sys.executable).parent / "linkspan"
    found = shutil.which("linkspan")
    if "UV" in os.environ:
        return "uv run linkspan"
    if found is not None and Path(found).resolve() == ours.resolve():
        return "linkspan"
    return str(ours) if ours.exists() else f"{sys.executable} -m linkspan.cli"


def first_lines(app: App, target: str) -> list[str]:
    """Return a `linkspan call` and a `curl` for each operation that answers here, then the commands that look inside."""
    word, found = spoken(), list[str]()
    for running in app.running.values():
        for handled in running.declared.operations.values():
            operation = handled.operation
            if operation is None:
                continue
            sample = shlex.quote(sample_json(operation.request))
            found += [
                f"{operation.kind} {operation.full_name}",
                f"  {word} call {_short(app, operation.name, operation.full_name)} {sample}",
                f"  curl -H 'content-type: application/json' -d {sample} {app.address}{operation.path}",
            ]
    found += ["look inside", f"  {word} tap", f"  {word} trace ID", f"  {word} dead list {target} --all"]
    if app.embedded is not None:
        from linkspan.brokers.embedded import cli_line  # noqa: PLC0415 - only where one runs

        found.append(f"  {cli_line(app.embedded)[0]}")
    return found


def _short(app: App, name: str, full_name: str) -> str:
    """Return the shortest name that is unique in the app."""
    try:
        find_operation(operations_of(app), name)
    except SetupError:
        return full_name
    return name
