"""Take the caller's identity from its TLS client certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error, SetupError
from linkspan.identity import Identity
from linkspan.middleware.authorize import asked_from_outside

if TYPE_CHECKING:
    from collections.abc import Collection

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.identity import Certificate

__all__ = ["MtlsIdentity"]

_SPIFFE = "spiffe://"


class MtlsIdentity:
    """The subject is the certificate's SPIFFE ID, or its first DNS name; the server's `Tls(client_ca=...)` has verified it.

    Args:
        trust_domains: The SPIFFE trust domains whose IDs are taken, such as `example.org`; empty takes those of any that the CA signs.
        dns: Whether a certificate without a SPIFFE ID is known by its first DNS name.
        same_process: The subject of calls between services of one process, which have no certificate. Without it they are anonymous.
        optional: Lets callers without a certificate pass, anonymously: for another middleware or `Authorize` to judge.
    """

    def __init__(
        self, *, trust_domains: Collection[str] = (), dns: bool = True, same_process: str | None = None, optional: bool = False
    ) -> None:
        if isinstance(trust_domains, str):
            raise SetupError("MtlsIdentity has a text as trust_domains: give a list of domains.")
        self._domains = frozenset(trust_domains)
        self._dns = dns
        self._own = same_process
        self._optional = optional

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Find out who calls, then go on."""
        self.before(ctx)
        return await call_next(ctx, request)

    def before(self, ctx: Context) -> None:
        """Set `ctx.identity`. Raises `Error(UNAUTHENTICATED)` without a certificate that names the caller."""
        if ctx.identity is not None or not asked_from_outside(ctx):
            return
        if ctx.certificate is not None:
            ctx.identity = self._identity(ctx.certificate)
        elif ctx.same_process and self._own is not None:
            ctx.identity = Identity(self._own, proof="process")
        elif not (self._optional or ctx.same_process):
            raise Error(Code.UNAUTHENTICATED, "There is no client certificate: call over TLS with one that the server's client CA signed.")

    def _identity(self, certificate: Certificate) -> Identity:
        claims = {"uris": certificate.uris, "names": certificate.names, "serial": certificate.serial}
        spiffe = [uri for uri in certificate.uris if uri.startswith(_SPIFFE)]
        if len(spiffe) > 1:  # X.509-SVID §2: exactly one
            raise Error(Code.UNAUTHENTICATED, "The client certificate has several SPIFFE IDs: use one that has exactly one.")
        if spiffe:
            if self._domains and spiffe[0].removeprefix(_SPIFFE).partition("/")[0] not in self._domains:
                raise Error(Code.UNAUTHENTICATED, "The client certificate is of another trust domain: use one of this system.")
            return Identity(spiffe[0], certificate.issuer, "mtls", claims)
        if self._dns and not self._domains and certificate.names:
            return Identity(certificate.names[0], certificate.issuer, "mtls", claims)
        raise Error(Code.UNAUTHENTICATED, "The client certificate names nobody: use one with a SPIFFE ID or a DNS name that is taken here.")
