"""A whole app with a gRPC port: one handler on both ports, the caller's side by address, settings, the end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from linkspan import App, Client, Code, Context, Contract, Error, Message, Service, ServiceContract, SetupError, command, field, query
from linkspan.cli.describe import described, lines
from linkspan.runtime import system

if TYPE_CHECKING:
    from pathlib import Path

contract = Contract("app.grpc.v1")


class Ask(Message):
    """Ask for a word."""

    word: str = field(1)


class Told(Message):
    """What was asked, and by whom."""

    word: str = field(1)
    caller: str = field(2)
    key: str = field(3)
    parent: str = field(4)
    seconds: float = field(5)


class Words(ServiceContract):
    """One of each kind."""

    tell = query(Ask, Told)
    learn = command(Ask, Told)


class Relays(ServiceContract):
    """Asks the other service."""

    ask_on = query(Ask, Told)


PATH = "/app.grpc.v1.Words/Learn"


def words(started: asyncio.Event | None = None, go_on: asyncio.Event | None = None) -> Service:
    service = Service("words", Words)

    async def told(ctx: Context, request: Ask) -> Told:
        if request.word == "wait" and started and go_on:
            started.set()
            await go_on.wait()
        if request.word == "no":
            raise Error(Code.ABORTED, "Not that word.", [Ask(word="another")])
        return Told(word=request.word, caller=ctx.caller, key=ctx.key, parent=ctx.parent, seconds=ctx.time_left)

    service.handles(Words.tell)(told)
    service.handles(Words.learn)(told)
    return service


def made(tmp_path: Path, *services: Service, **options: Any) -> App:
    settings: dict[str, Any] = {"broker": "memory://", "data": tmp_path, "http": "127.0.0.1:0", "grpc": "127.0.0.1:0", **options}
    return App(*services, **settings)


async def test_one_handler_answers_connect_and_grpc(tmp_path: Path) -> None:
    async with made(tmp_path, words()) as app:
        assert app.grpc_address.startswith("grpc://127.0.0.1:")
        for address in (app.address, app.grpc_address):
            async with Client(addresses=address, name="till") as client:
                told = await client.call(Words.learn, Ask(word="tea"), key="k-1", timeout=3)
                assert (told.word, told.caller, told.key) == ("tea", "till", "k-1")
                assert told.parent.startswith("00-")
                assert 2 < told.seconds <= 3.1
                with pytest.raises(Error) as caught:
                    await client.call(Words.tell, Ask(word="no"))
                assert (caught.value.code, caught.value.message) == (Code.ABORTED, "Not that word.")
                assert caught.value.details == (Ask(word="another"),)


async def test_service_calls_another_over_grpc_within_its_own_deadline_and_trace(tmp_path: Path) -> None:
    relay = Service("relay", Relays)
    traces: list[str] = []

    @relay.handles(Relays.ask_on)
    async def ask_on(ctx: Context, request: Ask) -> Told:
        traces.append(ctx.trace)
        return await ctx.call(Words.tell, request, timeout=60)

    async with (
        made(tmp_path / "a", words()) as neighbour,
        made(tmp_path / "b", relay, addresses={"app.grpc.v1.Words": neighbour.grpc_address}, grpc=None) as app,
        app.client("till") as client,
    ):
        assert app.grpc_address == ""
        told = await client.call(Relays.ask_on, Ask(word="tea"), timeout=2)
        assert told.caller == "relay"
        assert told.seconds <= 2.1
        assert told.parent.split("-")[1] == traces[0].split("-")[1]


async def test_calls_under_way_finish_while_the_app_ends(tmp_path: Path) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    app = made(tmp_path, words(started, go_on))
    async with app, grpc.aio.insecure_channel(app.grpc_address.removeprefix("grpc://")) as channel:
        call = channel.unary_unary(PATH)(Ask(word="wait").to_binary())
        answer = asyncio.ensure_future(_awaited(call))
        await started.wait()
        ending = asyncio.create_task(app.aclose())
        await asyncio.sleep(0.05)
        assert not ending.done()
        go_on.set()
        assert Told.from_binary(await answer).word == "wait"
        await ending
    assert app.grpc_address == ""


async def _awaited(call: Any) -> Any:
    return await call


def test_settings_show_the_port_and_the_environment_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSPAN_GRPC", "0.0.0.0:8090")
    monkeypatch.setenv("LINKSPAN_ADDRESSES", "words=grpc://127.0.0.1:9")
    app = App(words(), broker="memory://", data=tmp_path)
    shown = json.loads(json.dumps(described(app)))
    assert (shown["grpc"], shown["addresses"]) == ("0.0.0.0:8090", {"words": "grpc://127.0.0.1:9"})
    assert "gRPC at 0.0.0.0:8090" in lines(shown)


@pytest.mark.parametrize("grpc_at", ["8090x", "host", "host:99999", "h/o:1"])
def test_port_that_cannot_be_listened_on_is_refused(grpc_at: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="LINKSPAN_GRPC"):
        made(tmp_path, words(), grpc=grpc_at)


def test_without_grpcio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.transport.grpc_address.find_spec", lambda _name: None)
    with pytest.raises(SetupError, match=r"pip install 'linkspan\[grpc\]'"):
        made(tmp_path, words())
    with pytest.raises(SetupError, match=r"pip install 'linkspan\[grpc\]'"):
        Client(addresses="grpc://127.0.0.1:9", runtime=system())
