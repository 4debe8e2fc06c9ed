"""The served document and the served routes agree: schemathesis reads the one and tries the other."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from linkspan import Web
from tests.integration.rest_shop import open_shop

if TYPE_CHECKING:
    from pathlib import Path

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method"
)


@pytest.mark.timeout(180)
async def test_routes_answer_as_their_document_says(tmp_path: Path) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("not run: schemathesis is not installed")
    async with open_shop(tmp_path, web=Web(openapi=True)) as (app, seen):
        options = [
            "--checks",
            CHECKS,
            "--max-examples",
            "20",
            "--phases",
            "coverage,fuzzing",
            "--seed",
            "7",
            "--include-path-regex",
            "^/v1",
        ]
        command = [
            "-m",
            "schemathesis.cli",
            "run",
            f"{app.address}/openapi.json",
            *options,
            "-H",
            "connect-timeout-ms: 20000",
            "--no-color",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
        )
        written, _ = await process.communicate()
        assert process.returncode == 0, written.decode()[-4000:]
        assert len({type(request).__name__ for request in seen.requests}) == 4
