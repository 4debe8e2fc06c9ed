"""What the HTTP port does for browsers and tools: CORS and the OpenAPI document, both only where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openapi_spec_validator import validate

from linkspan import SetupError, Web
from tests.integration.rest_shop import as_json, curl, open_shop

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "https://app.example"
GET_ORDER = "/rest.shop.v1.Shop/GetOrder"
PREFLIGHT = [
    *("-X", "OPTIONS", "-H", f"origin: {PAGE}", "-H", "access-control-request-method: POST"),
    *("-H", "access-control-request-headers: content-type,connect-protocol-version,connect-timeout-ms,idempotency-key"),
]


async def test_pages_of_other_origins_may_not_call_by_default(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (app, _):
        for path in (GET_ORDER, "/v1/orders"):
            status, headers, _ = await curl(*PREFLIGHT, f"{app.address}{path}")
            assert status in {204, 405}
            assert not [name for name in headers if name.startswith("access-control")]
        _, headers, _ = await curl("-H", f"origin: {PAGE}", f"{app.address}/v1/orders/7")
        assert "access-control-allow-origin" not in headers


async def test_named_origins_may_call_routes_and_connect(tmp_path: Path) -> None:
    async with open_shop(tmp_path, web=Web(origins=(PAGE,))) as (app, seen):
        for path in (GET_ORDER, "/v1/orders"):
            status, headers, _ = await curl(*PREFLIGHT, f"{app.address}{path}")
            assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
            assert "connect-protocol-version" in headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in headers
        called = as_json({"orderId": "7"})
        for arguments in ([f"{app.address}/v1/orders/7"], [*called, f"{app.address}{GET_ORDER}"]):
            status, headers, body = await curl("-H", f"origin: {PAGE}", *arguments)
            assert (status, headers["access-control-allow-origin"], body["orderId"]) == (200, PAGE, "7")
            _, headers, _ = await curl("-H", "origin: https://evil.example", *arguments)
            assert "access-control-allow-origin" not in headers
        status, headers, body = await curl("-H", f"origin: {PAGE}", f"{app.address}/v1/orders/missing")
        assert (status, headers["access-control-allow-origin"], body["code"]) == (404, PAGE, "not_found")
        assert len(seen.requests) == 5
        assert (await curl(*called, f"{app.address}{GET_ORDER}"))[0] == 200


async def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSPAN_ORIGINS", f"https://other.example, {PAGE}")
    monkeypatch.setenv("LINKSPAN_OPENAPI", "1")
    async with open_shop(tmp_path) as (app, _):
        _, headers, document = await curl("-H", f"origin: {PAGE}", f"{app.address}/openapi.json")
        assert headers["access-control-allow-origin"] == PAGE
        assert document["info"]["title"] == "rest.shop.v1"
    monkeypatch.setenv("LINKSPAN_OPENAPI", "yes")
    with pytest.raises(SetupError, match="LINKSPAN_OPENAPI is 'yes': write 1"):
        Web.from_environment()


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://app.example/x", "ftp://x", "https://*.example", "null", ""]
)
def test_wrong_origin_is_told(origin: str) -> None:
    with pytest.raises(SetupError, match="cannot be a page's: write"):
        Web(origins=(origin,))


async def test_document_is_served_where_it_is_asked_for(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "off") as (app, _):
        assert (await curl(f"{app.address}/openapi.json"))[0] == 404
    async with open_shop(tmp_path / "on", web=Web(openapi=True)) as (app, _):
        status, headers, document = await curl(f"{app.address}/openapi.json")
        assert (status, headers["content-type"]) == (200, "application/json")
        validate(document)
        assert {GET_ORDER, "/v1/orders/{order_id}", "/v1/orders"} <= set(document["paths"])
        assert (await curl("--head", f"{app.address}/openapi.json"))[2] == ""
        assert (await curl(f"{app.address}/v1/orders/7"))[0] == 200
