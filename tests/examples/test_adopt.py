"""Somebody else's application takes an operation, or an outbox, in fewer than 15 changed lines."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="not run: fastapi is not installed")
pytest.importorskip("sqlalchemy", reason="not run: sqlalchemy is not installed")

from linkspan import App, Client, Context, Service
from tests.integration.asgi_servers import uvicorn_serving

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "adopt"


def changed(name: str) -> list[str]:
    """Return the lines, without blank ones, that differ from the application as it was; not its first line, which names it."""
    before, after = ((FOLDER / f"{each}.py").read_text(encoding="utf-8").splitlines()[1:] for each in ("before", name))
    lines = difflib.unified_diff(before, after, lineterm="", n=0)
    return [line for line in lines if line[:1] in {"+", "-"} and line[:3] not in {"+++", "---"} and line[1:].strip()]


@pytest.mark.parametrize("name", ["with_operation", "with_outbox"])
def test_adoption_changes_fewer_than_15_lines(name: str) -> None:
    lines = changed(name)
    assert 3 < len(lines) < 15, "\n".join(lines)
    assert not [line for line in lines if line.startswith("-")]  # nothing of the application had to go


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path}/shop.db")
    monkeypatch.setenv("LINKSPAN_DATA", str(tmp_path / "linkspan"))
    name = f"examples.adopt.{request.param}"
    sys.modules.pop(name, None)
    return importlib.import_module(name)


async def ask(url: str, method: str = "GET") -> Any:
    def blocking() -> Any:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return json.load(answer)

    return await asyncio.to_thread(blocking)


@pytest.mark.parametrize("shop", ["with_operation"], indirect=True)
async def test_operation_answers_beside_the_routes(shop: ModuleType) -> None:
    async with uvicorn_serving(shop.api) as address, Client(addresses=f"{address}/rpc") as client:
        await ask(f"{address}/orders/7", "POST")
        assert await ask(f"{address}/orders/7") == {"order_id": "7", "status": "placed"}
        assert (await client.call(shop.Orders.get_order, shop.Order(order_id="7"))).status == "placed"
    shop.engine.dispose()


@pytest.mark.parametrize("shop", ["with_outbox"], indirect=True)
async def test_outbox_sends_what_the_route_committed(shop: ModuleType, tmp_path: Path) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()
    mail = Service("mail")

    @mail.on(shop.OrderPlaced)
    async def note(ctx: Context, event: Any) -> None:
        await seen.put(event.order_id)

    async with uvicorn_serving(shop.api) as address, App(mail, data=tmp_path / "linkspan", http="127.0.0.1:0"):
        await ask(f"{address}/orders/7", "POST")
        with pytest.raises(urllib.error.HTTPError):  # the order is there already: rolled back, nothing is said twice
            await ask(f"{address}/orders/7", "POST")
        await ask(f"{address}/orders/8", "POST")
        async with asyncio.timeout(20):
            assert [await seen.get(), await seen.get()] == ["7", "8"]
        assert seen.empty()
    shop.engine.dispose()
