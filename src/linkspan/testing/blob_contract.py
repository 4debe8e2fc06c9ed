"""What every place for large contents promises, as scenarios that a place of one's own runs against itself.

    class TestMine(BlobPlaceContract):
        def make_place(self, folder):
            return MyPlace(...)

Each `test_` method is a coroutine that takes an empty directory and raises `AssertionError` where the place breaks its word.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path
    from typing import Any

    from linkspan.ports import BlobPlace

__all__ = ["BlobPlaceContract"]

NAME = "shop/0192f3a4-aaaa-7000-8000-000000000001"
OTHER = "_pins/mail/shop/0192f3a4-aaaa-7000-8000-000000000001/0192f3a4-aaaa-7000-8000-000000000002"
EVERY_BYTE = bytes(range(256))


class BlobPlaceContract:
    """Subclass it and fill `make_place`."""

    def make_place(self, folder: Path) -> BlobPlace:
        """Return a place that is not open yet; the same folder has the same content."""
        raise NotImplementedError

    @asynccontextmanager
    async def place(self, folder: Path) -> AsyncGenerator[BlobPlace]:
        """Open a place, close it at the end."""
        place = self.make_place(folder)
        await place.open()
        try:
            yield place
        finally:
            await place.aclose()

    async def test_blob_comes_back_as_it_was(self, tmp_path: Path) -> None:
        """A content of any bytes and size comes back, also from another opening of the place."""
        large = EVERY_BYTE * 4_000
        async with self.place(tmp_path) as place:
            for name, data in ((NAME, large), (OTHER, b"")):
                await place.put(name, data)
                _expect(await place.get(name, len(data)), data, "it is readable at once")
        async with self.place(tmp_path) as place:
            _expect(await place.get(NAME, len(large)), large, "it is still there")
            _expect(await place.get(OTHER, 0), b"", "an empty one too")

    async def test_same_name_again_is_harmless(self, tmp_path: Path) -> None:
        """A write that is repeated, since its answer was lost, leaves the content."""
        async with self.place(tmp_path) as place:
            for _ in range(2):
                await place.put(NAME, EVERY_BYTE)
            _expect(await place.get(NAME, 256), EVERY_BYTE, "it is there")
            _expect([name async for name in place.names()], [NAME], "once")

    async def test_missing_blob_has_its_code(self, tmp_path: Path) -> None:
        """What is not there is NOT_FOUND, which no retry mends."""
        async with self.place(tmp_path) as place:
            await _refused(place.get(NAME, 10), Code.NOT_FOUND, "nothing is there")
            await place.put(OTHER, b"x")
            await _refused(place.get(NAME, 10), Code.NOT_FOUND, "another is there")

    async def test_too_long_is_not_read(self, tmp_path: Path) -> None:
        """A content of more bytes than asked for is refused."""
        async with self.place(tmp_path) as place:
            await place.put(NAME, EVERY_BYTE * 2_000)
            await _refused(place.get(NAME, 511_999), Code.DATA_LOSS, "it is longer")

    async def test_names_are_all_there_are(self, tmp_path: Path) -> None:
        """Names are listed; removed ones are not, and removing again changes nothing."""
        async with self.place(tmp_path) as place:
            _expect([name async for name in place.names()], [], "an empty place has none")
            for name in (NAME, OTHER):
                await place.put(name, b"x")
            _expect(sorted([name async for name in place.names()]), sorted([NAME, OTHER]), "both are listed")
            for _ in range(2):
                await place.remove(NAME)
            _expect([name async for name in place.names()], [OTHER], "one is gone")
            await _refused(place.get(NAME, 10), Code.NOT_FOUND, "and cannot be read")

    async def test_close_is_idempotent(self, tmp_path: Path) -> None:
        """Closing twice is harmless."""
        async with self.place(tmp_path) as place:
            await place.aclose()


def _expect(actual: object, wanted: object, promise: str) -> None:
    if actual != wanted:
        raise AssertionError(f"{promise}: expected {_shown(wanted)}, found {_shown(actual)}")


def _shown(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


async def _refused(work: Coroutine[Any, Any, bytes], code: Code, promise: str) -> None:
    try:
        await work
    except Error as error:
        _expect(error.code, code, promise)
    else:
        raise AssertionError(f"{promise}: expected {code}, found a content")
