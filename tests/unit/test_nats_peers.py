"""Making a stream in a cluster whose servers are away, or whose leader has died: asked again for a while, then told what to do."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from nats.errors import TimeoutError as NoAnswerError

from linkspan.brokers.nats_admin import Admin
from linkspan.errors import Code, Error, SetupError
from linkspan.testing.clock import FakeClock

if TYPE_CHECKING:
    from linkspan.ports import Drift

MISSING = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
AWAY = {"error": {"code": 400, "err_code": 10005, "description": "no suitable peers for placement, peer offline"}}
FEW = {"error": {"code": 400, "err_code": 10005, "description": "no suitable peers for placement"}}


class Server:
    """Answers a request to make a stream as it is told to, in turn, the last answer for ever."""

    def __init__(self, *answers: dict[str, Any], silent: int = 0) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.silent = silent

    async def request(self, subject: str, _payload: bytes, timeout: float) -> Any:
        del timeout
        if self.silent:
            self.silent -= 1
            raise NoAnswerError
        answer = MISSING
        if ".CREATE." in subject:
            self.asked += 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return SimpleNamespace(data=json.dumps(answer).encode())


async def declared(server: Server) -> list[Drift]:
    """Declare while time goes on."""
    clock = FakeClock()
    admin = Admin(server, clock=clock)  # type: ignore[arg-type]  # all that it needs of a client
    declaring = asyncio.get_running_loop().create_task(admin.declare_stream("a.v1.events"))
    while not declaring.done():
        await clock.advance(0.1)
    return await declaring


async def test_it_is_made_once_a_server_that_was_away_is_back() -> None:
    server = Server(AWAY, AWAY, {})

    assert await declared(server) == []
    assert server.asked == 3


async def test_it_is_refused_where_a_server_stays_away() -> None:
    server = Server(AWAY)

    with pytest.raises(SetupError, match=r"cannot have 3 replicas .*peer offline.*replicas=1"):
        await declared(server)
    assert server.asked > 10


async def test_it_is_refused_at_once_where_there_are_too_few() -> None:
    server = Server(FEW)

    with pytest.raises(SetupError, match="run 3 servers"):
        await declared(server)
    assert server.asked == 1


async def test_it_is_asked_again_where_a_leader_died_with_the_request() -> None:
    server = Server({}, silent=2)

    assert await declared(server) == []
    assert server.asked == 1


async def test_a_server_that_stays_silent_is_unavailable() -> None:
    server = Server({}, silent=100)

    with pytest.raises(Error, match="did not answer") as told:
        await declared(server)
    assert told.value.code is Code.UNAVAILABLE
    assert server.silent >= 90
