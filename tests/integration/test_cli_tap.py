"""`linkspan tap` beside a running app: it sees everything in order, disturbs nobody, and lives through the broker's death."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers.nats import NatsBroker
from linkspan.errors import Error
from linkspan.ports import Outgoing, Seen
from linkspan.runtime import system
from tests.integration.command_line import Folder, Running, until
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "tap.v1.events"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def test_tap_shows_messages_decoded_and_masked_and_ends_with_a_count(folder: Folder) -> None:
    out, err = folder.path / "tap.out", folder.path / "tap.err"
    argv = [sys.executable, "-m", "linkspan.cli", "tap"]
    with Running(folder) as run, out.open("w") as to, err.open("w") as errors:
        tap = subprocess.Popen(argv, cwd=folder.path, env=folder.environment(), stdout=to, stderr=errors)
        try:
            until(lambda: "Watching" in err.read_text(), "it is about to watch")
            sent = 0

            def heard() -> bool:
                nonlocal sent
                assert run.place(f"o{sent}", note="for Ada")[0] == 200
                sent += 1
                return "OrderPlaced" in out.read_text()

            until(heard, "a message is seen")
            until(lambda: f'"o{sent - 1}"' in out.read_text(), "the last message is seen")
            tap.send_signal(signal.SIGINT)
            assert tap.wait(20) == 0
        finally:
            tap.kill()
            tap.wait()
        lines = out.read_text().splitlines()
        thanks = folder.query("mail", "select count(*) from thanks")
        assert run.stop() == 0

    assert all("cli.orders.v1.OrderPlaced" in line and '"note": "***"' in line for line in lines)
    assert "for Ada" not in out.read_text()
    assert err.read_text().endswith(f"{len(lines)} message{'s' if len(lines) > 1 else ''}.\n")
    assert thanks is not None


def test_tap_looks_back_chooses_and_prints_json(folder: Folder) -> None:
    with Running(folder) as run:
        for number in range(3):
            run.place(f"o{number}", note="for Ada")
        until(lambda: len(folder.query("mail", "select 1 from thanks")) == 3, "all are handled")
        done = folder.command("tap", "OrderPlaced", "--since", "all", "--limit", "3", "--json")
        raw = folder.command("tap", "OrderPlaced", "--since", "10m", "--limit", "1", "--json", "--raw")
        assert run.stop() == 0
    told = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0
    assert [each["data"]["orderId"] for each in told] == ["o0", "o1", "o2"]
    assert {each["data"]["note"] for each in told} == {"***"}
    assert [each["key"] for each in told] == ["o0", "o1", "o2"]
    assert done.stderr.endswith("3 messages.\n")
    assert json.loads(raw.stdout)["data"]["note"] == "for Ada"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("Nothing",), "'Nothing' is no topic and no message of this app"), (("--since", "soon"), "The moment 'soon' cannot be read")],
)
def test_wrong_words_are_refused(words: tuple[str, ...], sentence: str, folder: Folder) -> None:
    done = folder.command("tap", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


# --- the tap itself ---


def message(number: int) -> Outgoing:
    return Outgoing(TOPIC, "Happened", number % 64, f"id-{number}", "k", b"ce-id: x\r\n", b"%d" % number)


async def test_tap_sees_all_in_order_through_a_server_that_is_killed(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password)
        await broker.open()
        await broker.declare([TOPIC], [(TOPIC, "g")])
        await asyncio.gather(*[broker.publish(message(number)) for number in range(100)])
        seen: list[Seen] = []
        tap = broker.tap(seen.append)
        assert await tap.add(TOPIC, since=0) == 100
        await count(seen, 100)

        server.kill()
        await server.start()
        await until_published(broker, 100)
        await asyncio.gather(*[broker.publish(message(number)) for number in range(101, 200)])

        await count(seen, 200)
        assert [each.data for each in seen] == [b"%d" % number for number in range(200)]
        assert [each.sequence for each in seen] == list(range(1, 201))
        assert seen[99].pending == 0
        found = await broker.admin.request("CONSUMER.INFO.tap_v1_events.g")
        assert (found["num_pending"], found["delivered"]["consumer_seq"]) == (200, 0)
        await tap.aclose()
        await broker.aclose()


async def test_tap_of_a_topic_that_is_not_there_says_so(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password)
        await broker.open()
        with pytest.raises(Error, match="stream not found"):
            await broker.tap(print).add("nowhere.v1.events")
        await broker.aclose()


async def count(seen: list[Seen], number: int) -> None:
    async with asyncio.timeout(40):
        while len(seen) < number:  # noqa: ASYNC110 - the list is filled by a plain callback
            await asyncio.sleep(0.02)


async def until_published(broker: NatsBroker, number: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await broker.publish(message(number))
            except Error:
                await asyncio.sleep(0.05)
            else:
                return
