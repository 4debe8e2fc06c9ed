"""Two versions of one contract, written in Python, and what the second one breaks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import RULES, compare
from linkspan.contracts.snapshot import Snapshot
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.contracts.compat import Finding
    from linkspan.contracts.compat_rule import Rule

_NUMBERS = itertools.count(1)


def versions(*texts: str, package: str = "", owners: tuple[str, ...] = ()) -> list[Snapshot]:
    """Declare a contract again and again, under one name."""
    name = package.replace(".", "_") or f"versions{next(_NUMBERS)}"
    return [snapshot(text, package=package or f"{name}.v1", module=name, owner=(owners or ("",) * 9)[at]) for at, text in enumerate(texts)]


def snapshot(text: str, *, package: str, module: str, owner: str = "") -> Snapshot:
    return Snapshot.of(FileDescriptorSet(file=[declare(text, package=package, module=module, owner=owner).contract.descriptor()]))


def found(before: str, after: str, *, rules: Iterable[Rule] = RULES, owners: tuple[str, str] = ("", "")) -> list[Finding]:
    return compare(*versions(before, after, owners=owners), rules=rules)
