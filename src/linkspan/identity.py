"""Who calls, and how it was proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Certificate", "Identity"]


class Identity(msgspec.Struct, frozen=True):
    """A caller whose identity was proven: `subject` as named by `issuer`, and `proof`, such as `jwt` or `mtls`.

    `claims` is what else the proof says. Only the subject shows in texts: claims are personal data.
    """

    subject: str
    issuer: str = ""
    proof: str = ""
    claims: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Identity({self.subject!r})"


class Certificate(msgspec.Struct, frozen=True):
    """What a verified client certificate says: its subject alternative names (URIs, DNS names), and who signed it."""

    uris: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    issuer: str = ""
    serial: str = ""

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Certificate:
        """Take over what `ssl.SSLSocket.getpeercert` returns of a verified certificate."""
        alternatives: Iterable[tuple[str, str]] = facts.get("subjectAltName", ())
        pairs = tuple(alternatives)
        return cls(
            uris=tuple(value for kind, value in pairs if kind == "URI"),
            names=tuple(value for kind, value in pairs if kind == "DNS"),
            issuer=", ".join(f"{name}={value}" for part in facts.get("issuer", ()) for name, value in part),
            serial=str(facts.get("serialNumber", "")),
        )
