"""`make proof`: try to break each promise, for hours if need be, and write down what came of it.

    make proof                                   # the long form, every row, one after the other
    make proof ARGS="--short"                    # minutes instead of hours
    make proof ARGS="--only simulation crash"    # some rows; the others keep what they have for this commit
    make proof ARGS="--minutes 100"              # a shard: stop after so many minutes; the next run goes on with what is left
    make proof ARGS="--list"

What a row found is kept in `.linkspan-proof/<commit>/`, and a row that was interrupted goes on where it stopped, so a long proof
may take several sittings, on several machines: copy the folder. `proof/latest.json` and `docs/reference/proof.md` hold the rows
of one commit. Each has `name`, `tried`, `violations` and `holds`, or `not_run` with the reason. `--fresh` forgets what was done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from proof.page import write_page
from proof.rows import ROWS, Row

HERE = Path(__file__).parent
ROOT = HERE.parent
STATE = ROOT / ".linkspan-proof"
GRACE = 600.0
"""Seconds that a row that ends by itself may take for what it has begun."""


def commit() -> str:
    """Return what the rows belong to: the commit, marked where the work tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()

    found = git("rev-parse", "--short=12", "HEAD") or "unknown"
    # What a proof writes is no change of what it proves.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!proof/latest.json", ":!docs/reference/proof.md")
    return f"{found}-changed" if changed else found


def kept(folder: Path, row: Row, form: str) -> dict[str, Any] | None:
    """Return a row that is done."""
    file = folder / f"{row.key}.{form}.json"
    found: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if file.exists() else None
    return found


def attempt(folder: Path, row: Row, form: str, minutes: float) -> dict[str, Any]:
    """Run a row's command; it writes its own summary. One that is cut short is no row yet."""
    out = folder / f"{row.key}.{form}.json"
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    command = row.command(form, folder / f"{row.key}.{form}.jsonl", out, minutes)
    print(f"\n=== {row.key} ({form}): {' '.join(command)}", flush=True)
    try:
        code = subprocess.run(command, cwd=ROOT, check=False, timeout=minutes * 60 + (GRACE if row.sharded else 0)).returncode
    except subprocess.TimeoutExpired:
        return {"name": row.promise, "not_run": f"it was stopped after {minutes:.0f} minutes: run again, it goes on"}
    if not out.exists():
        return {"name": row.promise, "not_run": f"it ended with {code} and without a result"}
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    if "unfinished" in found:
        out.unlink()
        return {"key": row.key, "name": row.promise, "not_run": found["unfinished"]}
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    found = {"key": row.key, "form": form, **found, "name": row.promise, "machine": machine, "when": began}
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def main() -> int:
    """Read the options, prove, write; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the short form of each row")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="just these rows")
    parser.add_argument("--minutes", type=float, default=100.0, help="stop after so many minutes (default: 100)")
    parser.add_argument("--fresh", action="store_true", help="forget what was done for this commit")
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            print(f"{row.key:14} {row.promise}")
        return 0
    unknown = set(options.only or ()) - {row.key for row in ROWS}
    if unknown:
        parser.error(f"there is no row '{min(unknown)}': see --list")
    form, version = "short" if options.short else "long", commit()
    folder = STATE / version
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + options.minutes * 60, []
    for row in ROWS:
        done = kept(folder, row, form) or (None if form == "long" else kept(folder, row, "long"))
        left = (end - time.monotonic()) / 60
        if done is None and (options.only is None or row.key in options.only) and left > 0:
            done = attempt(folder, row, form, left)
        found.append(
            done or kept(folder, row, "short") or {"key": row.key, "name": row.promise, "not_run": "not tried for this commit yet"}
        )
    (HERE / "latest.json").write_text(json.dumps({"commit": version, "rows": found}, indent=2) + "\n", encoding="utf-8")
    write_page(ROOT / "docs/reference/proof.md", version, found)
    print()
    for entry in found:
        state = "not run" if "not_run" in entry else "holds" if entry["holds"] else "BROKEN"
        print(f"{state:8} {entry['name']}: {entry.get('not_run') or entry['tried']}")
    return 0 if all(entry.get("holds", True) for entry in found) else 1


if __name__ == "__main__":
    sys.exit(main())
