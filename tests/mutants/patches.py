"""The mutants as they are committed: one patch each, with the promise that it breaks and the test that finds it out.

A file is a header of `name: value` lines, an empty line, and a diff that `git apply` takes:

    breaks: an effect happens once
    killed-by: tests/unit/test_inbox.py::test_redrive_after_a_week_has_one_effect

    --- a/src/linkspan/...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["DURABLE_PATH", "ROOT", "SOURCE", "Patch", "all_patches", "durable_files"]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "src/linkspan"
HERE = Path(__file__).parent

DURABLE_PATH = (
    "context.py",
    "running.py",
    "when.py",
    "envelope.py",
    "batch.py",
    "claimcheck.py",
    "handing.py",
    "lanes.py",
    "outgoing/*.py",
    "incoming/*.py",
    "letters/*.py",
    # what keeps it
    "attestation.py",
    "blobsweep.py",
    "blobs/*.py",
    "stores/rows.py",
    "stores/sqlite*.py",
    "stores/postgres*.py",
    "stores/sql/queries.sql",
    "stores/sql/postgres/queries.sql",
    "brokers/memory*.py",
    "brokers/nats*.py",
    "brokers/kafka*.py",
)
"""The files between a publish and its effect, in `src/linkspan`: each has a mutant at least, and so has each that is added to them."""

EXCUSED = {
    "blobs/__init__.py": "names the places, and does nothing",
    "incoming/__init__.py": "says what is in it",
    "letters/__init__.py": "says what is in it",
    "outgoing/__init__.py": "says what is in it",
}
"""Files of those names that no promise rests on, and why."""

_CHANGED = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
_HEADER = re.compile(r"^(breaks|killed-by): (\S.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Patch:
    """A mutant. `killer` is a pytest node id, `files` are relative to the project."""

    path: Path
    promise: str
    killer: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return what it is called."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> Patch:
        """Read a committed patch. Raises `ValueError` where its header lacks something."""
        text = path.read_text(encoding="utf-8")
        header, _, diff = text.partition("\n\n")
        said = dict(_HEADER.findall(header))
        missing = {"breaks", "killed-by"} - said.keys()
        if missing:
            raise ValueError(
                f"The patch '{path.name}' does not say '{min(missing)}': write 'breaks:', 'killed-by:', an empty line, the diff."
            )
        return cls(path, said["breaks"], said["killed-by"], tuple(_CHANGED.findall(diff)))


def all_patches() -> list[Patch]:
    """Return all mutants by name."""
    return [Patch.read(path) for path in sorted(HERE.glob("*.patch"))]


def durable_files() -> list[str]:
    """Return the files of the durable path, relative to the project."""
    package = ROOT / SOURCE
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.*"))
    return [f"{SOURCE}/{name}" for name in names if name not in EXCUSED and any(_is(name, pattern) for pattern in DURABLE_PATH)]


def _is(name: str, pattern: str) -> bool:
    """Match a path; a star stands for anything within one folder."""
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)
