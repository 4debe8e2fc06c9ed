"""The keys that tokens are verified with: given ones, and those an issuer publishes as a JWK set (RFC 7517)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from linkspan.ports import Runtime

__all__ = ["FetchedKeys", "GivenKeys"]

_log = logging.getLogger("linkspan.middleware")

REFRESH: Final = 300.0
"""Seconds after which published keys are fetched again, while the known ones go on serving."""
COOLDOWN: Final = 30.0
"""Seconds between two fetches that unknown key ids or failures cause."""
STALE: Final = 86_400.0
"""Seconds that keys are trusted after the last fetch that succeeded."""
_SHORTEST_SECRET: Final = 32  # bytes (RFC 7518 §3.2)
_MOST_KEYS: Final = 100
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Key(NamedTuple):
    """A key, its id ('' where it has none), and the algorithms that it is for."""

    kid: str
    algorithms: frozenset[str]
    key: Any


def _chosen(keys: Sequence[_Key], algorithm: str, kid: str) -> list[Any]:
    """Return the keys that may have signed: of the token's key id where it names one, always of its algorithm's kind."""
    return [each.key for each in keys if algorithm in each.algorithms and (not kid or not each.kid or each.kid == kid)]


class GivenKeys:
    """Keys that do not change while the app runs."""

    def __init__(self, given: str | bytes | Mapping[str, Any] | None, algorithms: frozenset[str]) -> None:
        self._keys = [key for key in _read_given(given, algorithms) if key.algorithms]
        if not self._keys:
            raise SetupError("JwtAuthentication was given no key that fits its algorithms: give the issuer's public keys.")

    async def matching(self, algorithm: str, kid: str, runtime: Runtime) -> list[Any]:
        """Return the keys that may have signed."""
        del runtime
        return _chosen(self._keys, algorithm, kid)


class FetchedKeys:
    """An issuer's published keys, remembered; fetched again when they are old, or when a token names one that is not known."""

    def __init__(self, url: str, algorithms: frozenset[str], fetch: Callable[[str], Awaitable[bytes]] | None) -> None:
        parts = urlsplit(url)
        if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname in _LOOPBACK) != ("http", True)):
            raise SetupError(f"Keys cannot be fetched from '{url}': write an https:// address, or whoever is in between chooses the keys.")
        self._url, self._host = url, parts.hostname
        self._algorithms = algorithms
        self._fetch = fetch
        self._keys: list[_Key] = []
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def matching(self, algorithm: str, kid: str, runtime: Runtime) -> list[Any]:
        """Return the keys that may have signed. Raises `Error(UNAVAILABLE)` while there are none."""
        now = runtime.clock.monotonic()
        found = _chosen(self._keys, algorithm, kid)
        if (not found or now - self._fetched > REFRESH) and now - self._tried > COOLDOWN and self._fetching is None:
            self._tried = now
            self._fetching = asyncio.get_running_loop().create_task(self._refresh(runtime))
        if not found and self._fetching is not None:
            await asyncio.shield(self._fetching)
            found = _chosen(self._keys, algorithm, kid)
        if not self._keys or runtime.clock.monotonic() - self._fetched > STALE:
            raise Error(Code.UNAVAILABLE, "The issuer's keys cannot be had at present, so tokens cannot be checked: try again later.")
        return found

    async def _refresh(self, runtime: Runtime) -> None:
        try:
            data = await (self._fetch(self._url) if self._fetch is not None else _fetched(self._url, runtime))
            keys = _read_set(json.loads(data), self._algorithms)
            self._keys, self._fetched = keys or self._keys, runtime.clock.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever a fetch raises, the known keys go on serving
            fields = {"host": self._host, "error": type(error).__name__, "known": len(self._keys)}
            _log.warning("Fetching the issuer's keys failed; the known ones go on serving.", extra=fields)
        finally:
            self._fetching = None


async def _fetched(url: str, runtime: Runtime) -> bytes:
    from linkspan.transport.fetch import fetch  # noqa: PLC0415 - HTTP loads where it is used

    return await fetch(url, runtime)


def _read_given(given: Any, algorithms: frozenset[str]) -> list[_Key]:
    if isinstance(given, str | bytes):
        return [_read_one("", given, algorithms)]
    if "keys" in given:
        return _read_set(given, algorithms)
    return [_read_one(kid, key, algorithms) for kid, key in given.items()]


def _read_one(kid: str, text: str | bytes, algorithms: frozenset[str]) -> _Key:
    """Read a PEM public key, or take a shared secret. Raises `SetupError`, which does not show it."""
    raw = text.encode() if isinstance(text, str) else text
    if any(name.startswith("HS") for name in algorithms):
        if len(raw) < _SHORTEST_SECRET or b"-----BEGIN" in raw:
            raise SetupError(f"The shared secret of JwtAuthentication is unfit: give at least {_SHORTEST_SECRET} random bytes, no PEM.")
        return _Key(kid, algorithms, raw)
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - part of the extra

    try:
        key: Any = load_pem_public_key(raw)
    except Exception as error:
        raise SetupError("A key of JwtAuthentication cannot be read: give a public key in PEM ('-----BEGIN PUBLIC KEY-----').") from error
    return _Key(kid, algorithms & _fitting(type(key).__name__.lower(), str(getattr(getattr(key, "curve", None), "name", ""))), key)


def _fitting(kind: str, curve: str) -> frozenset[str]:
    """Return the algorithms that a kind of public key is for."""
    if "rsa" in kind:
        return frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
    if "ed25519" in kind or "okp" in kind:
        return frozenset({"EdDSA"})
    curves = {"secp256r1": "ES256", "P-256": "ES256", "secp384r1": "ES384", "P-384": "ES384", "secp521r1": "ES512", "P-521": "ES512"}
    return frozenset({curves[curve]}) if curve in curves else frozenset()


def _read_set(content: Any, algorithms: frozenset[str]) -> list[_Key]:
    """Read a JWK set; what is not for verifying signatures, or of a kind that is not accepted, is passed over."""
    import jwt  # noqa: PLC0415 - an extra, loaded where it is used

    listed: Any = _mapping(content).get("keys")
    found: list[_Key] = []
    for jwk in map(_mapping, cast("list[Any]", listed or [])[:_MOST_KEYS]):
        if jwk.get("use", "sig") != "sig" or jwk.get("kty", "oct") == "oct":
            continue
        fits = algorithms & _fitting(str(jwk.get("kty", "")).lower(), str(jwk.get("crv", "")))
        if "alg" in jwk:
            fits &= {jwk["alg"]}
        if not fits:
            continue
        try:
            key = jwt.PyJWK(jwk, algorithm=min(fits)).key
        except Exception:  # noqa: BLE001, S112 - one key that cannot be read must not take the others away
            continue
        found.append(_Key(str(jwk.get("kid", "")), fits, key))
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
