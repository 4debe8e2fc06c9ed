"""Places for large contents: a folder, or an object store of NATS. `place_for` chooses by the URL; others implement `BlobPlace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from linkspan.ports import BlobPlace

__all__ = ["place_for"]

_FORMS = "file:///var/lib/shop/blobs, file:relative/folder or nats://host:port/bucket"


def place_for(url: str) -> BlobPlace:
    """Return the place that a URL names, not opened yet. Raises `SetupError`; its text has no password."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = unquote(parts.path)
        if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or not path:
            raise SetupError(f"The blob place names no folder of this machine: write {_FORMS}.")
        from linkspan.blobs.folder import FolderPlace  # noqa: PLC0415 - only where it is used

        return FolderPlace(Path(path))
    if parts.scheme in {"nats", "tls"}:
        from linkspan.blobs.nats_objects import NatsObjects  # noqa: PLC0415 - the client library loads where it is used

        return NatsObjects(url)
    raise SetupError(f"The blob place '{parts.scheme or url.partition(':')[0]}:' is not known: write {_FORMS}.")
