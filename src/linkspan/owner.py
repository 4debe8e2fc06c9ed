"""Who may state a fact: the events of a package are published by the one service that owns it (ADR 0012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from linkspan.contract import Contract
from linkspan.errors import Code, Error, SetupError
from linkspan.message import is_event, is_message_class, package_of, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.operation import ServiceContract

__all__ = ["ALL", "Owned", "Owns", "check_owners", "owned"]

Owns: TypeAlias = "Iterable[Contract | str | type[Any]] | Literal['*']"


@dataclass(frozen=True, slots=True)
class Owned:
    """What somebody may publish: the events of these packages, and these events by their full names.

    `what` names the owner in errors, `places` are the packages to which all of these belong.
    """

    what: str
    packages: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    everything: bool = False

    def allows(self, package: str, full_name: str) -> bool:
        """Tell whether an event may be published."""
        return self.everything or package in self.packages or full_name in self.events

    def check(self, package: str, full_name: str) -> None:
        """Refuse an event that others own. Raises `Error(FAILED_PRECONDITION)`."""
        if self.allows(package, full_name):
            return
        raise Error(
            Code.FAILED_PRECONDITION,
            f"{self.what} cannot publish '{full_name}', which is for the service that owns '{package}' to state: let that one publish it, "
            f"or say with owns=['{package}'] that this is the owner.",
        )


ALL = Owned("Anybody", everything=True)
"""For whoever stands in for others, such as tests of the sender itself."""


def owned(what: str, owns: Owns | None, contracts: Iterable[type[ServiceContract]] = ()) -> Owned:
    """Read an `owns` setting; left out it is the packages of the contracts. Raises `SetupError`."""
    if owns is None:
        own = frozenset(contract.contract.package for contract in contracts)
        return Owned(what, own, places=own)
    if isinstance(owns, str):
        if owns == "*":
            return Owned(what, everything=True)
        raise SetupError(f"{what} has owns='{owns}': give a list, as in owns=['{owns}'].")
    packages, events = set[str](), dict[str, str]()
    for each in owns:
        thing = cast("Any", each)
        if isinstance(thing, Contract):
            packages.add(thing.package)
        elif isinstance(each, str) and each != "*":
            packages.add(each)
        elif is_message_class(thing) and is_event(thing):
            events[type_name(thing)] = package_of(thing)
        else:
            raise SetupError(f"{what} cannot own {thing!r}: name contracts, their packages, or event classes.")
    return Owned(what, frozenset(packages), frozenset(events), frozenset(packages | set(events.values())))


def check_owners(services: Iterable[tuple[str, Owned, Iterable[type[ServiceContract]]]]) -> None:
    """Refuse two owners of one event among `(name, owned, contracts)`. Packages without events may be shared. Raises `SetupError`."""
    found: dict[str, str] = {}
    for name, owns, contracts in services:
        silent = {each.contract.package for each in contracts if not (each.contract.events or each.events)}
        for what in sorted((owns.packages | owns.events) - silent):
            other = found.setdefault(what, name)
            if other != name:
                text = f"The services '{other}' and '{name}' would both publish the events of '{what}'"
                raise SetupError(f"{text}: give one of them owns=[...] without it.")
