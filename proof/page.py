"""The page that shows what was proven: docs/reference/proof.md, written from the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["write_page"]

_HEAD = """# Proof

What was tried against each promise, and what came of it. `make proof` writes this page; nobody edits it. "short" is what CI tries at
every change, "long" takes hours. A row that could not be tried says so.

Commit `{commit}`.

| promise | tried | violations | |
|---|---|---|---|
"""


def write_page(path: Path, commit: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table."""
    text = _HEAD.format(commit=commit)
    for row in rows:
        if "not_run" in row:
            text += f"| {row['name']} | not run: {row['not_run']} | | not run |\n"
        else:
            state = "holds" if row["holds"] else "**broken**"
            text += f"| {row['name']} | {row['tried']} ({row['form']}, {row['when'][:10]}) | {row['violations']} | {state} |\n"
    machines = sorted({row["machine"] for row in rows if "machine" in row})
    text += f"\nMachine: {'; '.join(machines) or 'none'}.\n"
    path.write_text(text, encoding="utf-8")
