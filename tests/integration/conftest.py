"""Runs every test of the direct path twice: with plain unary calls served in the protocol class, and all of them over ASGI."""

from __future__ import annotations

import pytest

from tests.integration import direct_orders


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Add the two ways to each test of a module that starts servers by `serving`, unless it compares the ways itself."""
    if getattr(metafunc.module, "serving", None) is direct_orders.serving and "both_ways" not in metafunc.module.__name__:
        metafunc.fixturenames.append("fast")
        metafunc.parametrize("fast", [True, False], ids=["fast", "asgi"], indirect=True)


@pytest.fixture
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the way that `serving` takes."""
    monkeypatch.setattr(direct_orders, "FAST", request.param)
