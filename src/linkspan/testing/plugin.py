"""The pytest plugin: `settled` as a fixture, on the broker that `--linkspan-broker` names.

Async tests that use the fixture run without another plugin; pytest-asyncio and anyio take those they are told to.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from linkspan.app import App
    from linkspan.testing.run import Run

__all__ = ["pytest_addoption", "pytest_pyfunc_call", "settled"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the broker."""
    group = parser.getgroup("linkspan")
    group.addoption(
        "--linkspan-broker",
        choices=("memory", "nats"),
        default=None,
        help="the broker of the apps under test: memory (default), or nats, the real embedded server",
    )


@pytest.fixture
def settled(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Run]]:
    """Give `linkspan.testing.settled`, on the chosen broker and in the test's own folder."""
    from linkspan.testing.run import ENGINE, settled as run_settled  # noqa: PLC0415 - pytest loads plugins in every run

    chosen = request.config.getoption("--linkspan-broker") or os.environ.get(ENGINE)

    @asynccontextmanager
    async def run(app: App, **options: Any) -> AsyncGenerator[Run]:
        settings: dict[str, Any] = {"engine": chosen, "folder": tmp_path, **options}
        async with run_settled(app, **settings) as running:
            yield running

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run an async test that uses `settled` and that no other plugin was told to run."""
    taken = any(pyfuncitem.get_closest_marker(name) for name in ("asyncio", "anyio"))
    if taken or "settled" not in pyfuncitem.fixturenames or not iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
