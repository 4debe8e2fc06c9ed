"""What a database has of Linkspan's tables and of the user's scripts, against what it should have."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Scripts = Sequence[tuple[str, str]]

__all__ = ["SchemaState", "compared"]


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database stands.

    `format` is that of our tables, 0 where there are none; `newest` the one that this linkspan wants. `drift` says what differs in our
    tables, one sentence each. `pending` are the user's scripts to be applied, `wrong` those that were applied and have changed or are gone.
    """

    format: int
    newest: int
    drift: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        """Tell whether there is nothing to do."""
        return self.format == self.newest and not (self.drift or self.pending or self.wrong)

    def findings(self) -> list[tuple[str, str]]:
        """Return what is to be done, in words: how it stands, and what to do."""
        if self.format == 0:
            return [("missing", "there are no tables of Linkspan's here: run 'linkspan db init'")]
        found = [("drifted", f"{line}: put it back, or restore the database") for line in self.drift]
        if self.format < self.newest:
            found.append(("behind", f"format {self.format} of {self.newest}: run 'linkspan db upgrade'"))
        if self.format > self.newest:
            found.append(("ahead", f"format {self.format}, this linkspan knows up to {self.newest}: use a newer linkspan"))
        found += [("behind", f"script {name} is not applied: run 'linkspan db upgrade'") for name in self.pending]
        found += [("changed", f"script {name} was applied and has changed or is gone: restore it") for name in self.wrong]
        return found or [("current", "")]


def compared(applied: Mapping[str, str], scripts: Scripts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare applied scripts, name to digest, with the given ones; return those to be applied and those that are wrong."""
    given = {name: sha256(sql.encode()).hexdigest() for name, sql in scripts}
    pending = tuple(name for name in given if name not in applied)
    return pending, tuple(name for name, digest in applied.items() if given.get(name) != digest)
