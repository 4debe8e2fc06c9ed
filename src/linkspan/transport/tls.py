"""TLS for the direct path: contexts made of files, renewed with them, and what a failed handshake means."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Tls", "client_context", "files_state", "lost_error", "server_context", "unreached"]

_log = logging.getLogger("linkspan.transport")

_TURNS: Final = 10  # a handshake within a process takes four
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_WRONG_HOST: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_UNKNOWN_CA: Final = (2, 18, 19, 20, 21)  # no issuer, self-signed
_HINT: Final = "where the server asks for a client certificate, check that Tls(cert=..., key=...) has one of its CA"
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings of an App or a Client, as PEM files, which are read anew when they change.

    Args:
        cert: The certificate, with those between it and the CA. An App that has one serves https; calls that leave present it, too.
        key: The private key of the certificate, not encrypted.
        client_ca: The CA of callers' certificates: an App that has it takes only callers that present one.
        ca: The CA of the servers that are called; by default those that the system trusts.
    """

    cert: str | Path | None = None
    key: str | Path | None = None
    client_ca: str | Path | None = None
    ca: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) is not (self.key is None):
            raise SetupError("Tls needs cert and key together (LINKSPAN_TLS_CERT, LINKSPAN_TLS_KEY): give both files.")
        if self.client_ca is not None and self.cert is None:
            raise SetupError("Tls has client_ca (LINKSPAN_TLS_CLIENT_CA) without cert and key: give the server its own, too.")

    @classmethod
    def from_environment(cls) -> Self:
        """Return what LINKSPAN_TLS_CERT, LINKSPAN_TLS_KEY, LINKSPAN_TLS_CLIENT_CA and LINKSPAN_TLS_CA say."""
        return cls(
            os.environ.get("LINKSPAN_TLS_CERT") or None,
            os.environ.get("LINKSPAN_TLS_KEY") or None,
            os.environ.get("LINKSPAN_TLS_CLIENT_CA") or None,
            os.environ.get("LINKSPAN_TLS_CA") or None,
        )


class _Renewed(ssl.SSLContext):
    """A context that makes itself anew when its files have changed. New ones that cannot be used leave the old ones in force."""

    _make: Callable[[], ssl.SSLContext]
    _files: Sequence[str | Path | None]
    _state: object
    _current: ssl.SSLContext

    @classmethod
    def of(cls, protocol: int, make: Callable[[], ssl.SSLContext], files: Sequence[str | Path | None]) -> _Renewed:
        """Make the first one. Raises `SetupError`."""
        self = cls(protocol)
        self._make, self._files = make, files
        self._state, self._current = files_state(files), make()
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            self.verify_mode = self._current.verify_mode  # for whoever asks; handshakes are the current one's
        return self

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; event loops call this for each."""
        state = files_state(self._files)
        if state != self._state:
            self._state = state
            try:
                self._current = self._make()
                _log.info("TLS files have changed; new connections use them.")
            except SetupError as error:
                _log.error("TLS files have changed and cannot be used; the former ones stay in force.", extra={"error": str(error)})
        return self._current.wrap_bio(*args, **options)


def files_state(files: Sequence[str | Path | None]) -> object:
    """Return what changes when one of the files is written or replaced."""
    found: list[object] = []
    for file in files:
        try:
            state = None if file is None else os.stat(file)  # noqa: PTH116 - a path or its text
        except OSError:
            state = None
        found.append(state and (state.st_mtime_ns, state.st_size, state.st_ino))
    return found


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return a server's context: TLS 1.2 or newer, callers' certificates demanded where `client_ca` is given. Raises `SetupError`."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_own(context, tls)
        _check_own(tls)
        if tls.client_ca is not None:
            _trust(context, tls.client_ca)
            # Event loops end a failed handshake without an alert, so who has none is told over HTTP, by the protocol.
            context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        return context

    return _Renewed.of(ssl.PROTOCOL_TLS_SERVER, make, (tls.cert, tls.key, tls.client_ca))


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return a client's context: TLS 1.2 or newer, server and host name verified, its own certificate presented. Raises `SetupError`."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.ca is not None:
            _trust(context, tls.ca)
        else:
            context.load_default_certs()
        if tls.cert is not None:
            _load_own(context, tls)
        context.set_alpn_protocols(["http/1.1"])
        return context

    return _Renewed.of(ssl.PROTOCOL_TLS_CLIENT, make, (tls.ca, tls.cert, tls.key))


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    assert tls.cert is not None  # noqa: S101 - asked before
    assert tls.key is not None  # noqa: S101 - comes with it
    for file in (tls.cert, tls.key):
        _check_file(file)

    def no_password() -> str:
        raise SetupError(f"The key '{tls.key}' is encrypted: give one that is not, readable by this user alone.")

    try:
        context.load_cert_chain(tls.cert, tls.key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SetupError(f"The key '{tls.key}' does not belong to the certificate '{tls.cert}': give the pair that does.") from error
        raise SetupError(f"The certificate '{tls.cert}' or its key '{tls.key}' cannot be read: write both as PEM.") from error


def _trust(context: ssl.SSLContext, ca: str | Path) -> None:
    _check_file(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise SetupError(f"The CA file '{ca}' cannot be read: write certificates as PEM.") from error


def _check_file(file: str | Path) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise SetupError(f"The TLS file '{file}' cannot be opened ({error.strerror}): correct the path, or the permissions.") from error


def _check_own(tls: Tls) -> None:
    """Shake hands with ourselves, so that a certificate that nobody would take is refused now. Raises `SetupError`."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load_own(server, tls)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(tls.cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for _ in range(_TURNS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                text = f"The certificate '{tls.cert}' would be refused by every caller ({error.verify_message}): renew it."
                raise SetupError(text) from error


def unreached(error: OSError, address: str) -> Error:
    """Return what it means that no connection could be made."""
    if isinstance(error, ConnectionResetError) and address.startswith("https://"):
        return Error(Code.UNAVAILABLE, f"Connecting to '{address}' failed in the TLS handshake: {_HINT}.")
    if not isinstance(error, ssl.SSLError):
        reason = "no connection in time" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        return Error(Code.UNAVAILABLE, f"Connecting to '{address}' failed ({reason}): check that the service runs there.")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _distrust(error)
    elif error.reason in _NO_TLS:
        why = "it does not speak TLS: check the port, or write http://."
    elif "VERSION" in (error.reason or "") or "CIPHER" in (error.reason or ""):
        why = "it speaks no TLS version and cipher in common with us: TLS 1.2 is the oldest."
    else:
        why = f"the TLS handshake was refused ({error.reason}): {_HINT}."
    return Error(Code.UNAVAILABLE, f"Connecting to '{address}' failed: {why}")


def lost_error(error: BaseException | None, address: str, text: str) -> Error:
    """Return the error for a connection that ended too early, which `text` says.

    With TLS 1.3 a client learns only now that its certificate was refused; nothing was done for it then.
    """
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return Error(Code.UNAUTHENTICATED, f"'{address}' ended the connection ({error.reason}): {_HINT}.")
    return Error(Code.UNAVAILABLE, f"{text} (TLS: {_HINT}.)" if address.startswith("https://") else text)


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired: renew it there."
    if error.verify_code in _WRONG_HOST:
        return "its certificate is for another host: call it by the name in the certificate."
    if error.verify_code in _UNKNOWN_CA:
        return "its certificate is of a CA that is not trusted here: give the CA in Tls(ca=...) or LINKSPAN_TLS_CA."
    return f"its certificate is not accepted ({error.verify_message}): correct it there."
