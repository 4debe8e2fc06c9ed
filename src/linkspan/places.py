"""Where an app listens and where it calls, as people write it: arguments of `App` and environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["Places", "addresses_of"]

if TYPE_CHECKING:
    Place: TypeAlias = tuple[str, int]

_DEFAULT = ("127.0.0.1", 8080)
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Places:
    """Host and port for calls, for gRPC peers, and for the probes of an orchestrator alone. `told` says that somebody chose the first."""

    http: Place
    grpc: Place | None = None
    probes: Place | None = None
    told: bool = False

    @classmethod
    def given(cls, http: str | None, grpc: str | None, probes: str | None) -> Self:
        """Read arguments, each falling back to its variable. Raises `SetupError`."""
        told = _read(http or os.environ.get("LINKSPAN_HTTP"), "LINKSPAN_HTTP")
        peers = _read(grpc or os.environ.get("LINKSPAN_GRPC"), "LINKSPAN_GRPC")
        asked = _read(probes or os.environ.get("LINKSPAN_PROBES"), "LINKSPAN_PROBES")
        return cls(told or _DEFAULT, peers, asked, told is not None)

    def settings(self) -> dict[str, str]:
        """Return the places as text, empty where there is none."""
        places = {"http": self.http, "grpc": self.grpc, "probes": self.probes}
        return {name: "" if place is None else f"{place[0]}:{place[1]}" for name, place in places.items()}


def _read(text: str | None, setting: str) -> Place | None:
    """Read `host:port`. Raises `SetupError`."""
    if not text:
        return None
    host, _, port = text.removeprefix("http://").removeprefix("grpc://").removeprefix("grpcs://").rstrip("/").rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= _LAST_PORT) or any(mark in host for mark in "/@ "):
        raise SetupError(f"The address '{text}' ({setting}) cannot be listened on: write host:port.")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def addresses_of(text: str) -> dict[str, str]:
    """Read LINKSPAN_ADDRESSES. Raises `SetupError`."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals or not name or not address.removeprefix("rest+").startswith(("http://", "https://", "grpc://", "grpcs://")):
            raise SetupError(f"LINKSPAN_ADDRESSES has '{part}': write name=http://host:port or name=grpc://host:port, separated by commas.")
        found[name] = address
    return found
