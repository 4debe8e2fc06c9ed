"""Who may call what: a rule per operation, asked after authentication and before the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from linkspan.errors import Code, Error, SetupError
from linkspan.operation import Operation, ServiceContract
from linkspan.path import Path, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.identity import Identity

__all__ = ["Authorize", "Rule", "anyone", "asked_from_outside", "require"]

Rule: TypeAlias = "Callable[[Identity], bool]"
"""Says whether an identity may. `require` makes the usual ones; any function of this shape does."""


def anyone(_identity: Identity | None) -> bool:
    """Let everyone call, also those whose identity was not proven."""
    return True


def require(*scopes: str, subject: str | None = None, issuer: str | None = None, **claims: object) -> Rule:
    """Return a rule: the identity has all these scopes (RFC 8693 §4.2), this subject, this issuer and these claims.

    A claim that is a list has to hold the value: `require(roles="clerk")`. Without arguments any proven identity may.
    """

    def may(identity: Identity) -> bool:
        return (
            (subject is None or identity.subject == subject)
            and (issuer is None or identity.issuer == issuer)
            and _scopes(identity).issuperset(scopes)
            and all(_holds(identity.claims.get(name), wanted) for name, wanted in claims.items())
        )

    return may


def asked_from_outside(ctx: Context) -> bool:
    """Tell whether a context is a call that arrived: neither one that leaves, nor a message of the durable path."""
    return ctx.side is Side.SERVER and ctx.path is not Path.DURABLE


class Authorize:
    """Asks a rule before each call: `Authorize({Orders.place_order: require("orders:write"), Orders: require()})`.

    A rule is found by operation, then by service contract, then under `*`; an operation without one is refused, so nothing is
    open by mistake. Goes behind a middleware that authenticates. Messages of the durable path carry no identity and pass: who may
    write to a topic is the broker's to say.
    """

    def __init__(self, rules: Mapping[Any, Rule | Callable[[Identity | None], bool]]) -> None:
        self._rules: dict[str, Any] = {}
        for what, rule in rules.items():
            if isinstance(what, Operation) or (isinstance(what, type) and issubclass(what, ServiceContract)):
                self._rules[cast("Any", what).full_name] = rule
            elif what == "*":
                self._rules["*"] = rule
            else:
                raise SetupError(f"Authorize was given {what!r}: name operations, ServiceContract classes or '*'.")

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Ask, then go on."""
        self.before(ctx)
        return await call_next(ctx, request)

    def before(self, ctx: Context) -> None:
        """Ask. Raises `Error`: UNAUTHENTICATED without an identity, PERMISSION_DENIED where the rule says no."""
        if not asked_from_outside(ctx):
            return
        rules, name = self._rules, ctx.operation
        rule = rules.get(name) or rules.get(name.rpartition(".")[0]) or rules.get("*")
        if rule is None:
            raise Error(Code.PERMISSION_DENIED, f"'{name}' has no rule in Authorize: add one, or a rule for '*'.")
        if rule is anyone:
            return
        if ctx.identity is None:
            raise Error(Code.UNAUTHENTICATED, f"'{name}' is for known callers only: send a token, or call with a client certificate.")
        if not rule(ctx.identity):
            raise Error(Code.PERMISSION_DENIED, f"'{name}' is not permitted to this caller: ask its owner for the permission.")


def _scopes(identity: Identity) -> frozenset[str]:
    given = identity.claims.get("scope") or identity.claims.get("scp") or ""
    return frozenset(given.split() if isinstance(given, str) else (str(each) for each in given))


def _holds(found: Any, wanted: object) -> bool:
    return bool(found == wanted or (isinstance(found, list | tuple) and wanted in found))
