"""The folder of locked versions: what was promised, as files to commit.

`lock.json` says in words what each version changed; `0001.binpb` and so on are descriptor sets with all that they import,
which `buf` and `protoc` read too. Nothing in the folder depends on when and where it was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.canonical import canonical
from linkspan.contracts.changes import changes
from linkspan.contracts.compat import compare_all
from linkspan.contracts.snapshot import Snapshot
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.contracts.compat import Finding

__all__ = ["Accepted", "Checked", "Lock", "Locked"]

FORMAT: Final = 1
INDEX: Final = "lock.json"
_NOTE: Final = "Written by `linkspan contracts lock`: commit it, and change nothing by hand."
_FILE: Final = re.compile(r"[0-9]{4,}\.binpb")


class Accepted(msgspec.Struct, frozen=True):
    """A broken rule that somebody accepted, against all versions before the one that it stands in, and why."""

    rule: str
    where: str
    was: str
    now: str
    reason: str


class Locked(msgspec.Struct, frozen=True):
    """One version in the index; `sha256` is that of its file."""

    version: int
    file: str
    sha256: str
    packages: list[str]
    changes: list[str]
    accepted: list[Accepted] = []


class _Index(msgspec.Struct, frozen=True):
    format: int
    note: str = _NOTE
    versions: list[Locked] = []


class _Format(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: `findings` that nobody accepted, the number that somebody did, and changes that are in no version yet."""

    findings: list[Finding]
    accepted: int
    versions: tuple[int, ...]
    unlocked: list[str]

    @property
    def errors(self) -> list[Finding]:
        """Return the findings that are more than warnings."""
        return [finding for finding in self.findings if finding.rule.level == "error"]


class Lock:
    """The locked versions of a folder, oldest first."""

    def __init__(self, folder: Path, versions: tuple[Locked, ...], snapshots: tuple[Snapshot, ...]) -> None:
        self.folder: Final = folder
        self.versions: Final = versions
        self._snapshots: Final = snapshots

    @classmethod
    def read(cls, folder: Path) -> Lock:
        """Read a folder; one without an index has no versions yet. Raises `SetupError` for what cannot be trusted."""
        index = folder / INDEX
        if not index.exists():
            return cls(folder, (), ())
        versions = tuple(_read_index(index).versions)
        return cls(folder, versions, tuple(Snapshot.of(_read_version(folder, each)) for each in versions))

    def check(self, present: FileDescriptorSet) -> Checked:
        """Compare with every locked version."""
        after = Snapshot.of(present)
        numbers = tuple(each.version for each in self.versions)
        found = compare_all(list(zip(numbers, self._snapshots, strict=True)), after)
        left = [open_ for finding in found if (open_ := self._without_accepted(finding)).versions]
        last = self._snapshots[-1] if self._snapshots else None
        return Checked(left, len(found) - len(left), numbers, changes(last, after))

    def _without_accepted(self, finding: Finding) -> Finding:
        """Take away the versions against which it was accepted later on."""
        same = [(finding.rule.id, finding.change.where, finding.change.was, finding.change.now)]
        until = max((v.version for v in self.versions for a in v.accepted if (a.rule, a.where, a.was, a.now) in same), default=0)
        return replace(finding, versions=tuple(number for number in finding.versions if number >= until))

    def add(self, present: FileDescriptorSet, *, reason: str = "") -> Locked | None:
        """Write the present contracts as the next version; None when nothing has changed.

        A `reason` accepts what breaks older versions. Raises `SetupError` when something breaks and there is none.
        """
        content = canonical(present).to_binary()
        digest = hashlib.sha256(content).hexdigest()
        if self.versions and self.versions[-1].sha256 == digest:
            return None
        checked = self.check(present)
        if checked.errors and not reason:
            raise SetupError(f"Changes that break older versions: {len(checked.errors)}. Mend them, or accept them with a reason.")
        changed = [each.change for each in checked.errors]
        number = self.versions[-1].version + 1 if self.versions else 1
        made = Locked(
            version=number,
            file=f"{number:04d}.binpb",
            sha256=digest,
            packages=sorted(Snapshot.of(present).packages),
            changes=checked.unlocked or ["order of declarations"],
            accepted=[Accepted(e.rule.id, c.where, c.was, c.now, reason) for e, c in zip(checked.errors, changed, strict=True)],
        )
        self._write(made, content)
        return made

    def _write(self, made: Locked, content: bytes) -> None:
        """Write the version, then the index that names it: a crash in between leaves a file that the next try replaces."""
        index = _Index(FORMAT, versions=[*self.versions, made])
        text = json.dumps(msgspec.to_builtins(index), indent=2, ensure_ascii=False) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / made.file).write_bytes(content)
            new = self.folder / f".{INDEX}.new"
            new.write_text(text, encoding="utf-8")
            os.replace(new, self.folder / INDEX)  # noqa: PTH105 - the name of what happens
        except OSError as error:
            raise SetupError(
                f"The lock in '{self.folder}' cannot be written ({error.strerror}): correct the folder or its rights."
            ) from error


def _read_index(index: Path) -> _Index:
    try:
        text = index.read_bytes()
        format_ = msgspec.json.decode(text, type=_Format).format
        if format_ != FORMAT:
            raise SetupError(f"The lock '{index}' has format {format_}, this linkspan reads {FORMAT}: use the one that wrote it.")
        found = msgspec.json.decode(text, type=_Index)
    except (OSError, msgspec.DecodeError) as error:
        raise SetupError(f"The lock '{index}' cannot be read ({_plain(error)}): take it from version control again.") from error
    numbers = [each.version for each in found.versions]
    if numbers != sorted(set(numbers)) or not all(_FILE.fullmatch(each.file) for each in found.versions):
        raise SetupError(f"The lock '{index}' was changed by hand: versions count up, and their files are named 0001.binpb and so on.")
    return found


def _plain(error: Exception) -> Any:
    return error.strerror if isinstance(error, OSError) else type(error).__name__


def _read_version(folder: Path, locked: Locked) -> FileDescriptorSet:
    file = folder / locked.file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SetupError(f"The locked version '{file}' cannot be read ({error.strerror}): take it from version control again.") from error
    if hashlib.sha256(content).hexdigest() != locked.sha256:
        raise SetupError(f"The locked version '{file}' is not what was locked: take it from version control again.")
    return FileDescriptorSet.from_binary(content)
