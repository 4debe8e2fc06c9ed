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

    from linkspan.ports import Store

__all__ = ["load_app", "opened_stores"]


def load_app(target: str) -> App:
    """Import `module:attribute` from the current folder. Raises `SetupError` saying what is wrong with the name."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not attribute:
        raise SetupError(f"The target '{target}' names no app: write module:attribute, such as hello:app.")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - compared with strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise SetupError(f"There is no module '{module_name}' here: start in the folder that holds it.") from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        raise SetupError(f"'{target}' is not an App: name the attribute that holds App(...).")
    return app


@asynccontextmanager
async def opened_stores(app: App, service: str) -> AsyncGenerator[dict[str, Store]]:
    """Open the existing databases of an app, or of one service, beside whoever has them open."""
    names = [each.name for each in app.services]
    if service and service not in names:
        raise SetupError(f"There is no service '{service}' in this app: name one of {', '.join(names)}.")
    stores: dict[str, Store] = {}
    urls: set[str] = set()
    try:
        for each in app.services:
            url = app.store_url(each)
            if (service and each.name != service) or url in urls:
                continue
            urls.add(url)
            store = open_store(url, name=each.name, runtime=system(), exclusive=False)
            await store.open()
            stores[each.name] = store
        yield stores
    finally:
        for store in stores.values():
            await store.aclose()
