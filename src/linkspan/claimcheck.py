"""Claim check: a content too large for the broker is kept in a place of its own, and the message carries where (CloudEvents `dataref`).

The content is written before the transaction that sends the message commits, so that a committed message always has it; one that is rolled
back leaves a blob that nobody refers to, which age removes (`blobsweep`). On its way in a reference is taken at nothing but its form: only
this place, a name of ours, the length and the digest that it says (ADR 21).
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

import msgspec

from linkspan.blobs import place_for
from linkspan.envelope import Reference, referring
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

    from linkspan.ports import BlobPlace, Outgoing, Runtime

__all__ = ["DAY", "NAME", "Blobs", "ClaimCheck", "blob_name", "place_by_default", "written_at"]

DAY: Final = 86_400.0
LOWEST: Final = 1_024
INLINE: Final = 900_000
"""The longest content in bytes that goes with its message: the brokers take 1 MiB, headers included."""
AT_ONCE: Final = 4
"""Large messages that are fetched and handled at a time: each is in memory as bytes and as a message."""
FETCH: Final = 30.0
"""Seconds that fetching may take."""
IN_THREAD: Final = 1 << 20
"""Bytes above which a digest is computed beside the loop."""
NAME: Final = re.compile(r"[a-z0-9-]{1,63}/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A blob: who wrote it, and an id that says when. A name is used once, so that no blob ever changes."""

_LENGTH: Final = re.compile(r"[1-9][0-9]{0,11}")
_DIGEST: Final = re.compile(r"blake2b-256:([0-9a-f]{64})")
_SET = 'write App(blobs="file:///…") or "nats://…", or set LINKSPAN_BLOBS, to the place where it was written, then redrive'


class Service(Protocol):
    """What is asked of a service: how long it remembers messages, in seconds."""

    name: str
    retention: float


@dataclass(frozen=True, slots=True)
class Blobs:
    """Where large contents are kept: `App(blobs=Blobs("file:///var/lib/shop/blobs"))`, or just the URL.

    Args:
        place: `file:` with a folder, `nats://host:port/bucket`, or an object of your own that is a `BlobPlace`.
        above: Contents longer than this many bytes go there; at most 900,000.
        most: No content may have more bytes than this.
        retention: Seconds that a content is kept at least, and longer while a row refers to it; None for ever. A day more than the
            services remember messages at least, and as long as the broker keeps messages that somebody may still read.
    """

    place: str | BlobPlace
    above: int = 256 * 1024
    most: int = 64 * 1024 * 1024
    retention: float | None = 37 * DAY

    def __post_init__(self) -> None:
        if not LOWEST <= self.above <= INLINE:
            raise SetupError(f"Blobs are to be used above {self.above} bytes: give {LOWEST} to {INLINE}.")
        if self.most < self.above:
            raise SetupError(f"Blobs of at most {self.most} bytes above {self.above}: give a larger `most`.")


def blob_name(writer: str, id_: str) -> str:
    """Return the name of a new blob of a service or client."""
    return f"{re.sub('[^a-z0-9-]', '-', writer.lower())[:63] or 'client'}/{id_}"


def written_at(name: str) -> float:
    """Return when a blob was written, in seconds since 1970: its last part is a UUIDv7."""
    id_ = name.rpartition("/")[2]
    return int(id_[:8] + id_[9:13], 16) / 1000


class ClaimCheck:
    """Puts large contents into the place and fetches them; without `blobs` it says what to set."""

    def __init__(self, blobs: Blobs | str | BlobPlace | None, runtime: Runtime) -> None:
        self.settings = None if blobs is None else blobs if isinstance(blobs, Blobs) else Blobs(blobs)
        place = None if self.settings is None else self.settings.place
        self.place: BlobPlace | None = place_for(place) if isinstance(place, str) else place
        self.runtime = runtime
        self.above = None if self.settings is None else self.settings.above
        self.most = 0 if self.settings is None else self.settings.most
        self._room = asyncio.Semaphore(AT_ONCE)

    async def stow(self, writer: str, message: Outgoing) -> Outgoing:
        """Put a message's content into the place, and return the message that refers to it.

        Raises `Error`: INVALID_ARGUMENT (too large), UNAVAILABLE (the place is away: nothing is sent, the handler tries again).
        """
        place, size = self._needed(), len(message.data)
        if size > self.most:
            text = f"'{message.name}' has {size} bytes, {self.most} are accepted: send less, or raise Blobs(most=...)."
            raise Error(Code.INVALID_ARGUMENT, text)
        name = blob_name(writer, self.runtime.ids.new())
        digest = await _digest(message.data)
        self.runtime.reached("blob.put.before")
        await place.put(name, message.data)
        self.runtime.reached("blob.put.after")
        reference = Reference(f"{place.prefix}{name}", str(size), f"blake2b-256:{digest}")
        return msgspec.structs.replace(message, headers=referring(message.headers, reference), data=b"")

    @asynccontextmanager
    async def fetched(self, reference: Reference) -> AsyncGenerator[bytes]:
        """Fetch a content and give it for as long as it is worked on; few are in hand at a time.

        Raises `Error`: UNAVAILABLE (try again), NOT_FOUND, DATA_LOSS (altered), INVALID_ARGUMENT (no reference of ours),
        FAILED_PRECONDITION (no place is set).
        """
        name, length, digest = self._checked(reference)
        async with self._room:
            yield await self._get(name, length, digest)

    async def _get(self, name: str, length: int, digest: str) -> bytes:
        try:
            async with asyncio.timeout(FETCH):
                data = await self._needed().get(name, length)
        except TimeoutError as error:
            raise Error(Code.UNAVAILABLE, f"The blob did not come within {FETCH:g} s: look after the blob place.") from error
        if len(data) != length or await _digest(data) != digest:
            raise Error(Code.DATA_LOSS, "The blob is not what the message says: it was altered. Put the right one back, then redrive.")
        return data

    def _needed(self) -> BlobPlace:
        if self.place is None:
            raise Error(Code.FAILED_PRECONDITION, f"The message's content is in a blob place, and none is set here: {_SET}.")
        return self.place

    def name_of(self, uri: str) -> str:
        """Return the name of a blob of this place, empty for any other reference."""
        prefix = "" if self.place is None else self.place.prefix
        name = uri.removeprefix(prefix)
        return name if prefix and uri.startswith(prefix) and NAME.fullmatch(name) else ""

    def _checked(self, reference: Reference) -> tuple[str, int, str]:
        place, name = self._needed(), self.name_of(reference.uri)
        if not name:
            foreign = not reference.uri.startswith(place.prefix)
            what = "another place than" if foreign else "no blob of"
            raise Error(Code.INVALID_ARGUMENT, f"The message's 'dataref' names {what} the one of this service, '{place.prefix}': {_SET}.")
        length, digest = _LENGTH.fullmatch(reference.length), _DIGEST.fullmatch(reference.digest)
        if length is None or digest is None:
            text = "The message's content is elsewhere, and its 'datalength' or 'datadigest' is missing or malformed: publish it with both."
            raise Error(Code.INVALID_ARGUMENT, text)
        if int(length[0]) > self.most:
            text = f"The message's content has {length[0]} bytes, {self.most} are accepted: raise Blobs(most=...), then redrive."
            raise Error(Code.INVALID_ARGUMENT, text)
        return name, int(length[0]), digest[1]

    def check(self, services: Iterable[Service]) -> None:
        """Refuse contents that are gone before the inbox has forgotten their messages. Raises `SetupError`."""
        kept = None if self.settings is None else self.settings.retention
        for service in services:
            if kept is not None and kept < service.retention + DAY:
                text = f"Blobs are kept for {kept:.0f} s, and service '{service.name}' remembers messages for {service.retention:.0f} s:"
                raise SetupError(f"{text} give Blobs(retention=...) a day more than that, or None.")

    def elsewhere(self, place: str) -> Blobs:
        """Return the same settings with another place (tests)."""
        return Blobs(place) if self.settings is None else replace(self.settings, place=place)

    async def open(self) -> None:
        """Open the place."""
        if self.place is not None:
            await self.place.open()

    async def aclose(self) -> None:
        """Close the place."""
        if self.place is not None:
            await self.place.aclose()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open the place, and close it at the end."""
        try:
            await self.open()
            yield
        finally:
            await self.aclose()


def place_by_default(data: Path, *, embedded: bool) -> str | None:
    """Return the place where none is given: what the environment says, or a folder beside an embedded server."""
    return os.environ.get("LINKSPAN_BLOBS") or (f"file:{quote(str(data / 'blobs'))}" if embedded else None)


async def _digest(data: bytes) -> str:
    if len(data) <= IN_THREAD:
        return blake2b(data, digest_size=32).hexdigest()
    return await asyncio.to_thread(lambda: blake2b(data, digest_size=32).hexdigest())
