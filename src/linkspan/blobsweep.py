"""Removing large contents that nobody needs any more, by age, and never one that a row refers to.

Whoever may need a content later than its retention, since a letter, an outbox row or a scheduled message refers to it, puts a *pin* beside
it: an empty blob whose name says which content, who and when. Services do not see each other's rows, but all see the pins. A pin is
renewed daily while the row is there, and removed by its own service when the last renewal is past the retention: so a content that left a
row yesterday stays as long as one that was written yesterday.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from linkspan import envelope as envelopes
from linkspan.claimcheck import DAY, NAME, written_at
from linkspan.errors import Error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from linkspan.claimcheck import ClaimCheck
    from linkspan.ports import BlobPlace, Runtime, Store

__all__ = ["sweep", "sweeping"]

_log = logging.getLogger("linkspan.blobs")

EVERY: Final = 6 * 3_600.0
"""Seconds between two sweeps."""
_PIN: Final = re.compile(rf"_pins/([a-z0-9-]+)/({NAME.pattern})/([0-9a-f-]{{36}})")
_REFERRING: Final = " union all ".join(
    f"select headers from {table} where length(data) = 0"  # noqa: S608 - our own tables' names
    for table in ("linkspan_outbox", "linkspan_scheduled", "linkspan_letter")
)


@asynccontextmanager
async def sweeping(claims: ClaimCheck, stores: Mapping[str, Store | None], runtime: Runtime) -> AsyncGenerator[None]:
    """Sweep again and again until the end of the block; not where contents are kept for ever."""
    settings = claims.settings
    if settings is None or settings.retention is None:
        yield
        return
    owned = {name: store for name, store in stores.items() if store is not None}
    task = asyncio.get_running_loop().create_task(_run(claims, owned, runtime))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _run(claims: ClaimCheck, stores: Mapping[str, Store], runtime: Runtime) -> None:
    await runtime.clock.sleep(EVERY * runtime.random.random())  # processes that start together do not sweep together
    while True:
        try:
            await sweep(claims, stores, runtime)
        except Exception as error:  # noqa: BLE001 - whatever a place raises, nothing is lost by sweeping later
            code = error.code.value if isinstance(error, Error) else type(error).__name__
            _log.warning("Removing old blobs failed; will try again.", extra={"code": code})
        await runtime.clock.sleep(EVERY)


async def sweep(claims: ClaimCheck, stores: Mapping[str, Store], runtime: Runtime) -> int:
    """Pin what these services refer to, unpin what they no longer do, remove what is old and unpinned; return how many were removed."""
    place, settings, now = claims.place, claims.settings, runtime.clock.now()
    if place is None or settings is None or settings.retention is None:
        return 0
    names = [name async for name in place.names()]
    pins = [(pin[1], pin[2], name) for name in names if (pin := _PIN.fullmatch(name))]
    pinned = {blob for _, blob, _ in pins}
    for service, store in stores.items():
        needed = await _needed(claims, store)
        pinned |= needed
        own = [(blob, name) for holder, blob, name in pins if holder == service]
        await _renew(place, service, needed, own, runtime)
        for blob, name in own:
            if blob not in needed and now - written_at(name) >= settings.retention:
                await place.remove(name)
    old = [name for name in names if NAME.fullmatch(name) and name not in pinned and now - written_at(name) > settings.retention]
    for name in old:
        await place.remove(name)
    if old:
        _log.info("Old blobs were removed.", extra={"count": len(old)})
    return len(old)


async def _renew(place: BlobPlace, service: str, needed: set[str], own: list[tuple[str, str]], runtime: Runtime) -> None:
    """Pin each needed blob that has no pin of the last day, then remove its older ones."""
    now = runtime.clock.now()
    fresh = {blob for blob, name in own if now - written_at(name) < DAY}
    for blob in needed - fresh:
        await place.put(f"_pins/{service}/{blob}/{runtime.ids.new()}", b"")
    for blob, name in own:
        if blob in needed and now - written_at(name) >= DAY:
            await place.remove(name)


async def _needed(claims: ClaimCheck, store: Store) -> set[str]:
    """Return the blobs that rows of a store refer to."""
    found: set[str] = set()
    for (headers,) in await store.read(_REFERRING):
        with suppress(Error):  # a letter whose headers cannot be read has no content that we could fetch
            reference = envelopes.read(bytes(headers)).reference
            found.add(claims.name_of(reference.uri) if reference is not None else "")
    return found - {""}
