"""Exported AsyncAPI documents as AsyncAPI's own parser sees them, protobuf payloads included."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from linkspan.cli.contract_target import load_contracts, members_of_app
from linkspan.contracts.asyncapi import asyncapi

ROOT = Path(__file__).parents[2]
PARSER = ROOT / ".make/asyncapi"
CHECK = Path(__file__).parent / "asyncapi_check.cjs"

if shutil.which("node") is None:
    pytest.skip("not run: node is not installed", allow_module_level=True)
if not (PARSER / "installed").exists():
    pytest.skip("not run: AsyncAPI's parser is not installed (scripts/get_asyncapi.sh)", allow_module_level=True)


def parsed(document: dict[str, Any]) -> dict[str, Any]:
    found = subprocess.run(
        ["node", str(CHECK), str(PARSER)], input=json.dumps(document), capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


@pytest.mark.parametrize(
    "target",
    [
        "examples.shop.contracts",
        "examples.shop.app:app",
        "tests.unit.test_message",
        "tests.unit.test_operation",
        "tests.unit.test_validation",
    ],
)
def test_parser_finds_nothing_wrong(target: str) -> None:
    contracts, app = load_contracts(target)
    document = asyncapi(contracts, None if app is None else members_of_app(app))
    answer = parsed(document)
    assert answer["found"] == []
    assert answer["valid"]
    assert len(answer["operations"]) == len(document["operations"])


def test_parser_reads_the_protobuf_payload() -> None:
    contracts, _ = load_contracts("examples.shop.contracts.orders_v1")
    payload = parsed(asyncapi(contracts))["payloads"]["shop.orders.v1.OrderPlaced"]["schema"]
    assert set(payload["properties"]) == {"order_id", "lines", "pieces", "cents"}
    assert payload["properties"]["lines"]["items"]["properties"]["pieces"]["x-primitive"] == "int32"


def test_parser_refuses_what_is_wrong() -> None:
    """Else the tests above would prove nothing."""
    contracts, _ = load_contracts("examples.shop.contracts.orders_v1")
    document = asyncapi(contracts)
    document["operations"]["shop.orders.v1.send.shop.orders.v1.events"]["action"] = "shout"
    assert "one of the allowed values" in parsed(document)["found"][0]["message"]
    document = asyncapi(contracts)
    document["components"]["messages"]["shop.orders.v1.OrderPlaced"]["payload"]["schema"] = "message {"
    assert parsed(document)["found"]
