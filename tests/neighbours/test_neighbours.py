"""A Go and a Node program, with their own official clients only, beside a running service: each publishes to it and reads from it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan import App, Context, Error, Service
from linkspan.options import OPTIONS_FILE
from linkspan.rules import schema
from linkspan.validation import check_of
from tests.neighbours import carts_v1, till_v1

if TYPE_CHECKING:
    from protobuf import DescFile

BUILT = Path(sys.prefix) / "neighbours"
PROGRAMS = {"go": [str(BUILT / "go-neighbour")], "node": ["node", str(BUILT / "node" / "neighbour.js")]}
MODES = ("protobuf", "json", "structured", "structured-protobuf")


@dataclass
class Neighbour:
    """A program of another language, the contract in its hands, and the server that it talks to."""

    language: str
    contract: str
    server: dict[str, str]

    async def run(self, verb: str, *arguments: str, given: str = "") -> list[Any]:
        """Run it to its end; return the lines of JSON that it printed."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAMS[self.language],
            verb,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.server,
        )
        out, err = await asyncio.wait_for(process.communicate(given.encode()), 50)
        assert process.returncode == 0, err.decode()
        return [json.loads(line) for line in out.decode().splitlines()]


@pytest.fixture(params=PROGRAMS)
def language(request: pytest.FixtureRequest) -> str:
    program = Path(PROGRAMS[request.param][-1])
    if not program.exists():
        pytest.skip(f"not run: {request.param} is not installed, or `make neighbours` has not built its program")
    return str(request.param)


@pytest.fixture
def contract(tmp_path: Path) -> str:
    """Write both contracts with all that they import, as one FileDescriptorSet."""
    files: dict[str, Any] = {}

    def add(file: DescFile) -> None:
        if file.name not in files:
            for needed in file.dependencies:
                add(needed)
            files[file.name] = file.proto

    carts_v1.contract.link()
    till_v1.contract.link()
    for file in (OPTIONS_FILE, schema().desc(), *carts_v1.contract.files, *till_v1.contract.files):
        add(file)
    written = tmp_path / "contract.binpb"
    written.write_bytes(FileDescriptorSet(file=list(files.values())).to_binary())
    return str(written)


async def test_neighbour_publishes_in_each_mode_and_reads_what_the_service_publishes(language: str, contract: str, tmp_path: Path) -> None:
    handled: list[tuple[str, int, str, str]] = []
    till = Service("till", owns=[till_v1.contract])

    @till.on(carts_v1.CartFilled)
    async def charge(ctx: Context, event: carts_v1.CartFilled) -> None:
        handled.append((event.cart_id, event.cents, ctx.caller, ctx.correlation))
        await ctx.publish(till_v1.Charged(cart_id=event.cart_id, cents=event.cents))

    async with App(till, data=tmp_path, http="127.0.0.1:0") as app:
        server = app.embedded
        assert server is not None
        environment = {"NATS_URL": server.url, "NATS_USER": server.user, "NATS_PASSWORD": server.password, "PATH": os.environ["PATH"]}
        neighbour = Neighbour(language, contract, environment)
        for mode in MODES:
            await neighbour.run("publish", mode, contract)
        read = await neighbour.run("consume", contract, str(len(MODES)))
        store = app.running["till"].store
        assert store is not None
        assert [letter.error for letter in await store.letters()] == []

    source, cart = {"go": ("/go%20neighbour", "cart für {}"), "node": ("/node-neighbour", "cart-of-{}")}[language]
    assert sorted(handled) == sorted((cart.format(mode), 1250, source, f"walk-{mode}") for mode in MODES)
    common = {"type": "neighbours.till.v1.Charged", "source": "/till", "datacontenttype": "application/protobuf"}
    expected = [
        {
            **common,
            "partitionkey": cart.format(mode),
            "correlationid": f"walk-{mode}",
            "data": {"cartId": cart.format(mode), "cents": "1250"},
        }
        for mode in MODES
    ]
    assert sorted(read, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("language", ["go"], indirect=True)
async def test_rules_of_the_contract_are_judged_alike_by_protovalidate_for_go(language: str, contract: str) -> None:
    check = check_of(carts_v1.CartFilled)
    assert check is not None
    messages = [
        carts_v1.CartFilled(cart_id=cart, cents=cents, note=note)
        for cart in ("", "c")
        for cents in (-1, 0, 1)
        for note in ("", "fine", "n" * 21, "7")
    ]

    def ids(message: carts_v1.CartFilled) -> list[str]:
        try:
            check(message)
        except Error as error:
            return [violation.rule_id for violation in error.details[0].violations]  # type: ignore[attr-defined]  # of protovalidate
        return []

    lines = "".join(f"{message.to_json()}\n" for message in messages)
    assert await Neighbour(language, contract, {}).run("validate", contract, given=lines) == [ids(message) for message in messages]
