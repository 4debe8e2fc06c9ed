"""What a NATS broker demands of its server, what it attests, and the embedded server that is killed under it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import subprocess
import threading
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.brokers import nats_hotpath
from linkspan.brokers.embedded import embedded_nats
from linkspan.brokers.nats import NatsBroker
from linkspan.brokers.nats_hotpath import HotLink
from linkspan.brokers.nats_link import PublicLink
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.testing.collector import Collector
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

TOPIC = "shop.orders.v1.events"


def message(number: int) -> Outgoing:
    return Outgoing(TOPIC, "OrderPlaced", number % 64, f"id-{number}", "k", b"ce-id: x\r\n", b"%d" % number)


@asynccontextmanager
async def opened(server: NatsRunner, **options: Any) -> AsyncGenerator[NatsBroker]:
    broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password, options=options)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.aclose()


async def test_wrong_password_is_a_setup_error(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        broker = NatsBroker(server.url, runtime=system(), user="u", password="hunter2")

        with pytest.raises(SetupError, match="refused the login") as caught:
            await broker.open()

        assert "hunter2" not in str(caught.value)


async def test_refused_login_is_told_though_a_later_try_was_reset() -> None:
    greeted = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","headers":true,"auth_required":true,"max_payload":1048576}\r\n')
        if greeted == 1:
            await reader.readuntil(b"PING\r\n")
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
            writer.close()
        else:
            writer.transport.abort()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        with pytest.raises(SetupError, match="refused the login"):
            await NatsBroker(f"nats://127.0.0.1:{port}", runtime=system(), user="u", password="p").open()

    assert greeted > 1


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Error) as caught:
        await NatsBroker("nats://127.0.0.1:1", runtime=system()).open()

    assert caught.value.code is Code.UNAVAILABLE


async def test_old_server_is_refused_unless_asked_for() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.14.9","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(SetupError, match=r"2\.14\.9.*2\.15 or newer"):
            await NatsBroker(url, runtime=system()).open()

        broker = NatsBroker(url, runtime=system(), options={"any_server_version": True, "sync_interval": "always"})
        await broker.open()
        found = await broker.attest()
        assert (found.level, [each.name for each in found.findings]) == ("process", ["nats.old_server"])
        await broker.aclose()


async def test_unproved_sync_lowers_the_level(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, opened(server) as broker:
        await broker.declare([TOPIC], [])

        found = await broker.attest()

    assert (found.level, found.facts["version"][:4], found.facts["replicas"]) == ("process", "2.15", "1")
    assert "monitoring" in found.reasons[0]


async def test_own_configuration_proves_sync(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        async with opened(server, sync_interval="always") as broker:
            assert (await broker.attest()).level == "power"
        async with opened(server, sync_interval="2m") as broker:
            assert (await broker.attest()).level == "process"


@pytest.mark.parametrize(("sync", "level"), [("always", "power"), ("2m", "process")])
async def test_monitoring_proves_sync(tmp_path: Path, sync: str, level: str) -> None:
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    async with (
        NatsRunner(tmp_path, sync=sync, more=f'http: "127.0.0.1:{port}"\n') as server,
        opened(server, monitoring=f"http://127.0.0.1:{port}") as broker,
    ):
        assert (await broker.attest()).level == level


async def test_monitoring_that_lies_or_sleeps_proves_nothing(tmp_path: Path) -> None:
    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[not json")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Liar) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            async with NatsRunner(tmp_path) as server:
                for address in (f"http://127.0.0.1:{http.server_port}", "http://127.0.0.1:1", "file:///etc"):
                    async with opened(server, monitoring=address) as broker:
                        found = await broker.attest()
                        assert (found.level, len(found.reasons)) == ("process", 1)
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "setting",
    [{"storage": "memory"}, {"no_ack": True}, {"persist_mode": "async", "allow_atomic": False}, {"discard": "old", "max_msgs": 10}],
    ids=lambda setting: next(iter(setting)),
)
async def test_stream_that_may_lose_messages_promises_nothing(tmp_path: Path, setting: dict[str, Any]) -> None:
    async with NatsRunner(tmp_path) as server, opened(server, sync_interval="always") as broker:
        body = {"name": "shop_orders_v1_events", "subjects": [f"{TOPIC}.>"], "storage": "file", "discard": "new", **setting}
        created = await broker.admin.request("STREAM.CREATE.shop_orders_v1_events", body)
        assert created["did_create"]

        assert [drift.setting for drift in await broker.declare([TOPIC], [])]
        found = await broker.attest()
        assert (found.level, len(found.findings)) == ("none", 1)
        assert TOPIC in found.reasons[0]


async def test_untried_client_version_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with NatsRunner(tmp_path) as server:
        async with opened(server) as broker:
            assert isinstance(broker.link, HotLink)

        monkeypatch.setattr(nats_hotpath, "TRIED", ((3, 0), (4, 0)))
        with caplog.at_level(logging.WARNING, "linkspan.nats"):
            async with opened(server) as broker:
                got = Collector(ack=True)
                assert isinstance(broker.link, PublicLink)
                await broker.declare([TOPIC], [(TOPIC, "g")])
                await broker.subscribe(TOPIC, "g", got, prefetch=10)
                await broker.publish(message(1))
                await got.count(1)

    assert "hot path is off" in caplog.text


async def test_hot_path_works_over_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2"]
    await asyncio.to_thread(
        subprocess.run, [*command, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    trust = ssl.create_default_context(cafile=str(certificate))
    more = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
    async with NatsRunner(tmp_path, more=more) as server, opened(server, tls=trust) as broker:
        got = Collector(ack=True)
        assert isinstance(broker.link, HotLink)
        await broker.declare([TOPIC], [(TOPIC, "g")])
        await broker.subscribe(TOPIC, "g", got, prefetch=100)

        await asyncio.gather(*[broker.publish(message(number)) for number in range(500)])

        await got.count(500)
        assert got.data == [b"%d" % number for number in range(500)]


async def test_embedded_server_killed_under_a_broker(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server:
        options = {"sync_interval": server.sync}
        broker = NatsBroker(server.url, runtime=system(), user=server.user, password=server.password, options=options)
        await broker.open()
        await broker.declare([TOPIC], [(TOPIC, "g")])
        assert (await broker.attest()).level == "power"
        got = Collector()
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        await asyncio.gather(*[broker.publish(message(number)) for number in range(10)])
        await got.count(10)

        os.kill(server.pid, signal.SIGKILL)
        await got.count(20)
        got.ack = True
        for delivery in got.deliveries:
            delivery.ack()
        await asyncio.gather(*[broker.publish(message(number)) for number in range(10, 20)])

        await got.count(30)
        assert got.data == [b"%d" % number for number in [*range(10), *range(20)]]
        await broker.aclose()


async def test_logs_hold_no_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with NatsRunner(tmp_path) as server, opened(server) as broker:
        await broker.declare([TOPIC], [(TOPIC, "g")])
        server.kill()
        await asyncio.gather(broker.publish(message(1)), return_exceptions=True)
        await server.start()

    everything = json.dumps([{name: str(value) for name, value in record.__dict__.items()} for record in caplog.records])
    assert server.password not in everything


async def test_server_of_ours_gets_the_ack_wait_of_who_runs_on_it(tmp_path: Path) -> None:
    """`linkspan dev` waits for a day, `linkspan run` for half a minute again; neither calls the other's setting a drift."""
    async with NatsRunner(tmp_path) as server:
        for seconds in (86_400.0, 30.0):
            async with opened(server, ack_wait=seconds) as broker:
                drifts = await broker.declare([TOPIC], [(TOPIC, "g")])
                found = await broker.admin.request("CONSUMER.INFO.shop_orders_v1_events.g")
                assert (drifts, found["config"]["ack_wait"]) == ([], int(seconds * 1e9))
