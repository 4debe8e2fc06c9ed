"""An object store of NATS JetStream as a place for large contents, through nats-py."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError, BadObjectMetaError, BucketNotFoundError, DigestMismatchError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import OBJ_META_PRE_TEMPLATE, OBJ_STREAM_TEMPLATE

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

__all__ = ["NatsObjects"]

BUCKET: Final = "linkspan-blobs"
TIMEOUT: Final = 30.0
"""Seconds that one blob may take."""
ATTEMPTS: Final = 3
"""Attempts at the first connection; later ones have no end."""
_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class NatsObjects:
    """Implements `linkspan.ports.BlobPlace` on `nats://user:password@host:port/bucket?replicas=3`; `options` are nats-py's for connect.

    Where the server syncs before it acknowledges (`sync_interval: always`), each blob is on disk before its message is committed.
    """

    def __init__(self, url: str, **options: Any) -> None:
        parts = urlsplit(url)
        self._bucket = parts.path.strip("/") or BUCKET
        replicas = parse_qs(parts.query).get("replicas", ["1"])[0]
        if not _BUCKET.fullmatch(self._bucket) or replicas not in {"1", "3", "5"}:
            raise SetupError("The blob place on NATS cannot be read: write nats://host:port/bucket, and ?replicas=3 in a cluster.")
        self.prefix = f"nats-object:{self._bucket}/"
        self._replicas = int(replicas)
        self._options: dict[str, Any] = {"servers": [urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))], **options}
        if parts.username:
            self._options |= {"user": unquote(parts.username), "password": unquote(parts.password or "")}
        self._client: Any = None
        self._stream: Any = None
        self._objects: Any = None
        self._refused = False

    async def open(self) -> None:
        """Connect, and make the bucket where it is missing."""
        client: Any = Client()
        try:
            async with self._coded(opening=True):
                options = {"connect_timeout": 5, "max_reconnect_attempts": ATTEMPTS, **self._options}
                await client.connect(**options, error_cb=self._on_error)
                client.options["max_reconnect_attempts"] = -1
                self._stream = client.jetstream(timeout=TIMEOUT)
                try:
                    self._objects = await self._stream.object_store(self._bucket)
                except BucketNotFoundError:
                    self._objects = await self._stream.create_object_store(self._bucket, replicas=self._replicas)
        except BaseException:
            with suppress(NatsError, OSError, RuntimeError):  # uvloop: RuntimeError for a handle that is gone
                await client.close()
            raise
        self._client = client

    async def aclose(self) -> None:
        """Close the connection."""
        client, self._client, self._objects = self._client, None, None
        if client is not None:
            await client.close()

    async def put(self, name: str, data: bytes) -> None:
        """Store in chunks, each acknowledged."""
        async with self._coded():
            await self._objects.put(name, data)

    async def get(self, name: str, most: int) -> bytes:
        """Read chunks up to the limit, and compare with the object store's own digest."""
        async with self._coded():
            info = await self._objects.get_info(name)
            if info.is_link() or (info.size or 0) > most:
                raise _altered()
            into = _Bounded(most)
            await self._objects.get(name, writeinto=into)
            return into.getvalue()

    async def names(self) -> AsyncIterator[str]:
        """Yield what the bucket holds."""
        async with self._coded():
            try:
                found: list[Any] = await self._objects.list(ignore_deletes=True)
            except NotFoundError:
                return
        for info in found:
            yield str(info.name)

    async def remove(self, name: str) -> None:
        """Delete the object, and the note about its deletion that would stay for ever."""
        async with self._coded():
            try:
                await self._objects.delete(name)
            except ObjectNotFoundError:
                return
            subject = OBJ_META_PRE_TEMPLATE.format(bucket=self._bucket, obj=base64.urlsafe_b64encode(name.encode()).decode())
            await self._stream.purge_stream(OBJ_STREAM_TEMPLATE.format(bucket=self._bucket), subject=subject)

    async def _on_error(self, error: Exception) -> None:
        """Remember a refusal: who waits is told of nothing but a server that does not answer."""
        self._refused = self._refused or "authorization" in str(error).lower()

    @asynccontextmanager
    async def _coded(self, *, opening: bool = False) -> AsyncGenerator[None]:
        if self._objects is None and not opening:
            raise Error(Code.UNAVAILABLE, "The blob place on NATS is not open: open it first.")
        try:
            async with asyncio.timeout(TIMEOUT):
                yield
        except ObjectNotFoundError as error:
            raise Error(Code.NOT_FOUND, "The blob is not in its bucket any more: it was removed, or written elsewhere.") from error
        except (DigestMismatchError, BadObjectMetaError) as error:
            raise _altered() from error
        except (NatsError, APIError, OSError, TimeoutError) as error:
            if opening and (self._refused or "permissions" in str(error).lower()):
                raise SetupError("The NATS server refuses the blob place: check its user, password and permissions.") from error
            name = type(error).__name__
            raise Error(Code.UNAVAILABLE, f"The blob place on NATS does not answer ({name}): look after the server.") from error


class _Bounded(io.BytesIO):
    """Takes no more bytes than were promised."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._most:
            raise _altered()
        return super().write(data)


def _altered() -> Error:
    return Error(Code.DATA_LOSS, "The blob is not what was written: it is longer, a link, or differs from its own digest.")
