"""Find the app that a command is about, and open its databases beside a running service."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from linkspan.app import App
from linkspan.errors import SetupError
from linkspan.runtime import system
from linkspan.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import ModuleType

    from linkspan.ports import Store
    from linkspan.service import Service

__all__ = ["chosen", "load_app", "load_module", "opened_stores", "stand_here"]


def stand_here() -> None:
    """Let modules of the current folder be imported."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - compared with strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above


def load_module(name: str) -> ModuleType:
    """Import a module from the current folder. Raises `SetupError` if there is none."""
    stand_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise SetupError(f"There is no module '{name}' here: start in the folder that holds it.") from error


def load_app(target: str) -> App:
    """Import `module:attribute` from the current folder. Raises `SetupError` saying what is wrong with the name."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute or module_name.startswith("."):
        raise SetupError(f"The target '{target}' names no app: write module:attribute, such as hello:app.")
    app = getattr(load_module(module_name), attribute, None)
    if not isinstance(app, App):
        raise SetupError(f"'{target}' is not an App: name the attribute that holds App(...).")
    return app


def chosen(app: App, service: str) -> list[Service]:
    """Return the service of this name, or all of them for ''. Raises `SetupError`."""
    found = [each for each in app.services if service in {"", each.name}]
    if not found:
        raise SetupError(f"There is no service '{service}' in this app: name one of {', '.join(each.name for each in app.services)}.")
    return found


@asynccontextmanager
async def opened_stores(app: App, service: str, *, needed: bool = True) -> AsyncGenerator[dict[str, Store]]:
    """Open the existing databases of an app, or of one service, beside whoever has them open.

    Yields them by service; services that share one have the same. A database that is not there
    yet is left out; `SetupError` when there is none but one is `needed`.
    """
    stores: dict[str, Store] = {}
    opened: dict[str, Store] = {}
    try:
        for each in chosen(app, service):
            url = app.store_url(each)
            store = opened.get(url)
            if store is None:
                store = open_store(url, name=each.name, runtime=system(), exclusive=False)
                file = getattr(store, "path", None)
                if file is not None and not file.exists():
                    continue
                await store.open()
                opened[url] = store
            stores[each.name] = store
        if needed and not stores:
            raise SetupError("There is no database of this app here yet: run it first, or start in its folder.")
        yield stores
    finally:
        for store in opened.values():
            await store.aclose()
