"""Every place for large contents passes the public contract suite: a folder, and an object store of a real NATS server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from linkspan.blobs.folder import FolderPlace
from linkspan.blobs.nats_objects import NatsObjects
from linkspan.brokers.embedded import embedded_nats
from linkspan.errors import Code, Error, SetupError
from linkspan.testing.blob_contract import EVERY_BYTE, NAME, BlobPlaceContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from linkspan.ports import BlobPlace


class TestFolder(BlobPlaceContract):
    def make_place(self, folder: Path) -> BlobPlace:
        return FolderPlace(folder / "blobs")


class TestNatsObjects(BlobPlaceContract):
    """Each scenario has a server of its own, which lives as long as the place is used."""

    def place(self, folder: Path) -> AbstractAsyncContextManager[BlobPlace]:
        @asynccontextmanager
        async def served() -> AsyncGenerator[BlobPlace]:
            async with embedded_nats(folder / "nats") as server:
                place = NatsObjects(server.url.replace("://", f"://{quote(server.user)}:{quote(server.password)}@"))
                await place.open()
                try:
                    yield place
                finally:
                    await place.aclose()

        return served()

    async def test_removed_objects_leave_nothing(self, tmp_path: Path) -> None:
        """No chunk, and no note about the removal, stays in the stream."""
        async with self.place(tmp_path) as place:
            assert isinstance(place, NatsObjects)
            for number in range(3):
                name = f"{NAME[:-1]}{number}"
                await place.put(name, EVERY_BYTE * 1_000)
                await place.remove(name)
            found = await place._stream.stream_info("OBJ_linkspan-blobs")

        assert found.state.messages == 0

    async def test_an_altered_object_is_refused(self, tmp_path: Path) -> None:
        async with self.place(tmp_path) as place:
            assert isinstance(place, NatsObjects)
            await place.put(NAME, EVERY_BYTE)
            info = await place._objects.get_info(NAME)
            await place._stream.publish(f"$O.linkspan-blobs.C.{info.nuid}", b"more")
            with pytest.raises(Error) as caught:
                await place.get(NAME, 10_000)

        assert caught.value.code is Code.DATA_LOSS

    async def test_a_server_that_is_away_is_worth_another_try(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("linkspan.blobs.nats_objects.TIMEOUT", 1.0)
        place = NatsObjects("nats://127.0.0.1:9/", max_reconnect_attempts=1, reconnect_time_wait=0.05)
        with pytest.raises(Error) as caught:
            await place.open()

        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(Error, match="open it first"):
            await place.get(NAME, 1)

    async def test_a_wrong_password_says_so(self, tmp_path: Path) -> None:
        async with embedded_nats(tmp_path / "nats") as server:
            place = NatsObjects(server.url.replace("://", "://eve:wrong@"))
            with pytest.raises(SetupError, match="refuses the blob place"):
                await place.open()
            await place.aclose()
