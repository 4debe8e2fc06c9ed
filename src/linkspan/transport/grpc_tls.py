"""TLS for gRPC: grpcio's credentials, made of the same files as the HTTP port's."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from linkspan.identity import Certificate
from linkspan.transport.tls import client_context, files_state, server_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from linkspan.transport.tls import Tls

__all__ = ["certificate_of", "channel_credentials", "server_credentials"]

_log = logging.getLogger("linkspan.transport")


def server_credentials(tls: Tls) -> Any:
    """Return a server's credentials; files that change are read again for the next connection. Raises `SetupError`."""
    server_context(tls)  # says in our words what is wrong with the files
    files = _Files(tls)
    return grpc.dynamic_ssl_server_credentials(files.current, files.renewed, require_client_authentication=tls.client_ca is not None)


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Return a client's credentials: the server's certificate and name are verified, our own is presented. Raises `SetupError`."""
    client_context(tls)  # says in our words what is wrong with the files
    trusted = tls.ca or ssl.get_default_verify_paths().cafile
    return grpc.ssl_channel_credentials(_read(trusted), _read(tls.key), _read(tls.cert))


def certificate_of(proven: Mapping[str, Iterable[bytes]]) -> Certificate | None:
    """Return what grpcio's `auth_context` says of a verified client certificate; issuer and serial are not in it."""
    uris, names = (tuple(value.decode("ascii", "replace") for value in proven.get(kind, ())) for kind in ("peer_uri", "peer_dns"))
    return Certificate(uris, names) if uris or names or proven.get("x509_pem_cert") else None


class _Files:
    """The server's files, as grpcio asks for them at each handshake, in a thread of its own."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._state = files_state((tls.cert, tls.key, tls.client_ca))
        self.current = self._configuration()

    def renewed(self) -> Any:
        """Return the files' content when it has changed and can be used, else None, which leaves the former in force."""
        state = files_state((self._tls.cert, self._tls.key, self._tls.client_ca))
        if state == self._state:
            return None
        self._state = state
        try:
            server_context(self._tls)
            return self._configuration()
        except Exception as error:  # noqa: BLE001 - whatever it is, connections go on with the former files
            _log.error("TLS files have changed and cannot be used; the former ones stay in force.", extra={"error": type(error).__name__})
            return None

    def _configuration(self) -> Any:
        pair = (_read(self._tls.key) or b"", _read(self._tls.cert) or b"")  # both are there, or the context had refused
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=_read(self._tls.client_ca))


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()
