"""Addresses that gRPC is spoken at: `grpc://host:port`, or `grpcs://` with TLS.

Asked before grpcio is loaded, which only those who call such an address have.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from linkspan.errors import SetupError

__all__ = ["GRPC", "GRPCS", "check_installed", "grpc_target"]

GRPC: Final = ("grpc://", "grpcs://")
GRPCS: Final = "grpcs://"


def grpc_target(address: str) -> str:
    """Return `host:port` of a gRPC address. Raises `SetupError` for what can never be connected to, and without grpcio."""
    try:
        url = urlsplit(address)
        host, port = url.hostname or "", url.port
        address.encode("ascii")
    except ValueError as error:
        raise SetupError(f"Reading address '{address}' failed ({error}): write 'grpc://host:port'.") from error
    unfit = url.username or url.query or url.fragment or url.path.strip("/") or any(c.isspace() for c in address)
    if not host or not port or unfit:
        raise SetupError(f"Address '{address}' cannot be called: write 'grpc://host:port', with nothing behind it.")
    check_installed(f"Calling '{address}'")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_installed(what: str) -> None:
    """Refuse what needs grpcio where it is missing. Raises `SetupError`."""
    if find_spec("grpc") is None:
        raise SetupError(f"{what} needs grpcio, which is not installed: pip install 'linkspan[grpc]'.")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else its core writes to stderr whenever a peer goes or a process is started
