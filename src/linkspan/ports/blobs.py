"""What the core asks of a place for large contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["BlobPlace"]


class BlobPlace(Protocol):
    """Keeps contents by name, outside of broker and database. Passes `linkspan.testing.BlobPlaceContract`.

    Names have slashes between parts of lower-case letters, digits, dashes and underscores; a name is written once and never changed.
    Each method raises `Error(UNAVAILABLE)` while the place cannot be reached or used: the caller tries again.
    """

    @property
    def prefix(self) -> str:
        """Return how each reference to a blob of this place begins, such as `s3://shop-blobs/`: the same for all who share the place."""
        ...

    async def open(self) -> None:
        """Connect, and make the place where it is missing. Raises `SetupError` where it cannot be used as it is set."""
        ...

    async def aclose(self) -> None:
        """Close. Idempotent."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Keep a content; it survives a power cut once this returns."""
        ...

    async def get(self, name: str, most: int) -> bytes:
        """Return a content. Raises `Error`: NOT_FOUND, or DATA_LOSS where it has more than `most` bytes, of which no more are read."""
        ...

    def names(self) -> AsyncIterator[str]:
        """Yield the names of all blobs, in any order."""
        ...

    async def remove(self, name: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        ...
