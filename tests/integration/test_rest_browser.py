"""A page of another origin in a real browser: calls over Connect and by routes where its origin is named, and not otherwise."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from starlette.responses import HTMLResponse

from linkspan import Web
from tests.integration.asgi_servers import uvicorn_serving
from tests.integration.rest_shop import open_shop

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

PAGE = """<!doctype html><title>waiting</title><script>
const json = {"content-type": "application/json", "connect-protocol-version": "1", "connect-timeout-ms": "5000"};
const post = body => ({method: "POST", headers: {...json, "idempotency-key": "k-1"}, body: JSON.stringify(body)});
const shown = async (path, options) => {
  try {
    const answer = await fetch(ADDRESS + path, options);
    return answer.status + " " + await answer.text();
  } catch (error) { return "blocked"; }
};
(async () => {
  const results = [
    await shown("/rest.shop.v1.Shop/GetOrder", post({orderId: "7"})),
    await shown("/v1/orders/8"),
    await shown("/v1/orders", post({orderId: "9"})),
    await shown("/v1/orders/missing"),
  ];
  document.title = "done";
  document.body.textContent = "[" + results.join("|") + "]";
})();
</script><body></body>"""


async def visited(address: str, folder: Path) -> str:
    """Open a page that calls the app; return what it shows in the end."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("not run: chromium is not installed")

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await HTMLResponse(PAGE.replace("ADDRESS", f'"{address}"'))(scope, receive, send)

    async with uvicorn_serving(page, lifespan="off") as origin:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom"]
        process = await asyncio.create_subprocess_exec(
            program, *flags, origin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        written, _ = await asyncio.wait_for(process.communicate(), 100)
    found = re.search(r"<body>\[(.*)\]</body>", written.decode(), re.DOTALL)
    assert found is not None, written.decode()[-2000:]
    return found[1]


@pytest.mark.timeout(150)
async def test_page_of_a_named_origin_calls(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "app", web=Web(origins=("*",))) as (app, seen):
        connect, get, placed, missing = (await visited(app.address, tmp_path / "browser")).split("|")
        assert connect.startswith('200 {"orderId":"7"')
        assert get.startswith('200 {"orderId":"8"')
        assert placed.startswith('200 {"orderId":"9"')
        assert missing.startswith('404 {"code": "not_found"')
        assert [ctx.key for ctx in seen.contexts][2] == "k-1"


@pytest.mark.timeout(150)
async def test_page_of_another_origin_is_blocked(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "app", web=Web(origins=("https://app.example",))) as (app, seen):
        results = (await visited(app.address, tmp_path / "browser")).split("|")
        assert results == ["blocked"] * 4
        assert all(ctx.operation.endswith("GetOrder") for ctx in seen.contexts)  # simple GETs arrive, their answers are not shown
