"""Authenticate callers by signed tokens (RFC 7519, as profiled for APIs by RFC 9068 and RFC 8725). Needs the extra `jwt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import Code, Error, SetupError
from linkspan.identity import Identity
from linkspan.middleware.authorize import asked_from_outside
from linkspan.middleware.keys import FetchedKeys, GivenKeys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from linkspan.context import Context
    from linkspan.handler import Handler

__all__ = ["JwtAuthentication"]

_MOST: Final = 8 * 1024  # bytes of a token
_SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
_ASYMMETRIC: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_OPTIONS: Final[Any] = {
    "require": ["exp", "iss", "aud", "sub"],
    "verify_exp": False,  # the moments are compared on the injected clock
    "verify_nbf": False,
    "verify_iat": False,
}


class JwtAuthentication:
    """Sets `ctx.identity` from `authorization: Bearer <token>`; without a valid one the call ends with UNAUTHENTICATED.

    Args:
        issuer: The `iss` that tokens must have.
        audience: The `aud` that tokens must have: the name of this service at the issuer.
        keys: The issuer's public keys: PEM text, several by key id, or a JWK set as a mapping. With an HS algorithm: the shared secret.
        jwks_url: Where the issuer publishes its keys, instead of `keys`; fetched when first needed, then every five minutes.
        algorithms: The signature algorithms that are accepted; whatever else a token's header asks for is refused, `none` always.
        leeway: Seconds that the clocks of issuer and service may differ.
        optional: Lets callers without a token pass, anonymously; a wrong token is refused all the same.
        fetch: Fetches `jwks_url`; by default over Linkspan's own HTTP client with the system's CAs.
    """

    def __init__(  # noqa: PLR0913 - settings, each a keyword
        self,
        *,
        issuer: str,
        audience: str | Collection[str],
        keys: str | bytes | Mapping[str, Any] | None = None,
        jwks_url: str | None = None,
        algorithms: Collection[str] = ("RS256", "ES256", "EdDSA"),
        leeway: float = 30.0,
        optional: bool = False,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
    ) -> None:
        self._jwt = _library()
        if not issuer or not audience:
            raise SetupError("JwtAuthentication needs issuer and audience: a token for another service must not open this one.")
        if (keys is None) is (jwks_url is None):
            raise SetupError("JwtAuthentication needs either keys or jwks_url: give one of them.")
        _check_algorithms(algorithms)
        self._issuer = issuer
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        self._algorithms = frozenset(algorithms)
        self._leeway = leeway
        self._optional = optional
        self._keys = GivenKeys(keys, self._algorithms) if jwks_url is None else FetchedKeys(jwks_url, self._algorithms, fetch)

    def __repr__(self) -> str:
        return f"JwtAuthentication(issuer={self._issuer!r})"

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Find out who calls, then go on."""
        if ctx.identity is None and asked_from_outside(ctx):
            token = _token(ctx.headers.get("authorization", ""))
            if token:
                ctx.identity = await self._verified(ctx, token)
            elif not self._optional:
                raise Error(Code.UNAUTHENTICATED, "There is no token: send it as 'authorization: Bearer <token>'.")
        return await call_next(ctx, request)

    async def _verified(self, ctx: Context, token: str) -> Identity:
        algorithm, kid = self._header(token)
        for key in await self._keys.matching(algorithm, kid, ctx.home.runtime):
            try:
                claims = self._jwt.decode(
                    token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, options=_OPTIONS
                )
            except self._jwt.InvalidSignatureError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever the library thinks of it; its texts may quote the token
                raise self._refused(error) from None
            self._check_time(claims, ctx.home.runtime.clock.now())
            return Identity(claims["sub"], self._issuer, "jwt", claims)
        raise Error(Code.UNAUTHENTICATED, "The token's signature is not one of the issuer's keys: get a new token.")

    def _header(self, token: str) -> tuple[str, str]:
        if len(token) <= _MOST:
            try:
                header: Any = self._jwt.get_unverified_header(token)
            except Exception:  # noqa: BLE001 - as above
                header = {}
            algorithm, kid = header.get("alg"), header.get("kid") or ""
            if isinstance(algorithm, str) and isinstance(kid, str):
                if algorithm not in self._algorithms:
                    raise Error(Code.UNAUTHENTICATED, "The token is signed with an algorithm that is not accepted here: ask the issuer.")
                return algorithm, kid
        raise Error(Code.UNAUTHENTICATED, "The token cannot be read: send a signed JWT as 'authorization: Bearer <token>'.")

    def _refused(self, error: Exception) -> Error:
        jwt = self._jwt
        if isinstance(error, jwt.InvalidAudienceError):
            text = "The token is for another audience: get one for this service."
        elif isinstance(error, jwt.InvalidIssuerError):
            text = "The token is of another issuer: get one of the issuer that this service trusts."
        elif isinstance(error, jwt.MissingRequiredClaimError):
            text = "The token lacks a claim: it needs exp, iss, aud and sub."
        else:
            text = "The token is not valid: get a new one."
        return Error(Code.UNAUTHENTICATED, text)

    def _check_time(self, claims: Mapping[str, Any], now: float) -> None:
        expires, begins = claims["exp"], claims.get("nbf", 0)
        if not (_is_moment(expires) and _is_moment(begins)) or not claims["sub"]:
            raise Error(Code.UNAUTHENTICATED, "The token has a claim of a wrong type: exp and nbf are numbers, sub is a text.")
        if expires + self._leeway <= now:
            raise Error(Code.UNAUTHENTICATED, "The token has expired: get a new one.")
        if begins - self._leeway > now:
            raise Error(Code.UNAUTHENTICATED, "The token is not valid yet: compare the clocks of issuer and service.")


def _library() -> Any:
    try:
        import jwt  # noqa: PLC0415 - an extra, loaded where it is used
    except ImportError as error:
        raise SetupError("JwtAuthentication needs PyJWT: install linkspan[jwt].") from error
    return jwt


def _check_algorithms(algorithms: Collection[str]) -> None:
    """Refuse what lets a caller choose how to be believed (RFC 8725 §3.1, §3.2)."""
    if isinstance(algorithms, str):
        raise SetupError("JwtAuthentication has a text as algorithms: give a list, such as ['RS256'].")
    chosen = frozenset(algorithms)
    unknown = chosen - _SYMMETRIC - _ASYMMETRIC
    if unknown or not chosen:
        raise SetupError(f"JwtAuthentication cannot accept {sorted(chosen)}: choose from {sorted(_ASYMMETRIC | _SYMMETRIC)}.")
    if chosen & _SYMMETRIC and chosen & _ASYMMETRIC:
        text = "JwtAuthentication has HS and public key algorithms together: a public key could pass for a secret. Choose one kind."
        raise SetupError(text)


def _token(header: str) -> str:
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
