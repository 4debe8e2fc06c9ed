"""`linkspan broker apply` by an admin, and an app whose login may create nothing, on a real server with permissions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers.nats import NatsBroker
from linkspan.runtime import system
from tests.integration.command_line import Folder, Running, until
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from pathlib import Path

PERMISSIONS = """
authorization {
  users: [
    { user: u, password: secret }
    { user: app, password: plain, permissions: {
      publish: ["cli.orders.v1.>", "$JS.ACK.>", "$JS.FC.>",
                "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.CONSUMER.RESET.>"]
      subscribe: ["_INBOX.>"]
    } }
  ]
}
"""


class LockedServer(NatsRunner):
    """A server where `u` may do everything, and `app` only what a running app needs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        file = directory / "server.conf"
        file.write_text(file.read_text().replace("authorization { user: u, password: secret }", PERMISSIONS))

    @property
    def admin_url(self) -> str:
        return self.url.replace("nats://", "nats://u:secret@")

    @property
    def app_url(self) -> str:
        return self.url.replace("nats://", "nats://app:plain@")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


async def test_admin_creates_and_a_locked_app_runs(tmp_path: Path, folder: Folder) -> None:
    async with LockedServer(tmp_path) as server:
        refused = folder.command("run", "cli_orders:app", LINKSPAN_BROKER=server.app_url)
        assert refused.returncode == 2
        sentence = "The stream of topic 'cli.orders.v1.commands' is missing, and this login may not create it: "
        assert sentence + "run `linkspan broker apply MODULE:APP` with one that may." in refused.stderr
        assert "plain" not in refused.stderr

        checked = folder.command("broker", "apply", "cli_orders:app", "--check", "--json", LINKSPAN_BROKER=server.admin_url)
        assert checked.returncode == 1
        assert {row["state"] for row in json.loads(checked.stdout)} == {"missing"}
        assert "The broker differs" in checked.stderr

        applied = folder.command("broker", "apply", "cli_orders:app", "--json", LINKSPAN_BROKER=server.admin_url)
        assert applied.returncode == 0
        assert [(row["what"], row["state"]) for row in json.loads(applied.stdout)] == [
            ("stream 'cli_orders_v1_commands'", "created"),
            ("stream 'cli_orders_v1_events'", "created"),
            ("consumer 'orders' of stream 'cli_orders_v1_commands'", "created"),
            ("consumer 'mail' of stream 'cli_orders_v1_events'", "created"),
        ]
        again = folder.command("broker", "apply", "cli_orders:app", "--check", LINKSPAN_BROKER=server.admin_url)
        assert (again.returncode, "as declared" in again.stdout) == (0, True)

        with Running(folder, LINKSPAN_BROKER=server.app_url) as run:
            assert run.place("7")[0] == 200
            until(lambda: folder.query("mail", "select 1 from thanks") != [], "it is thanked for")
            assert run.stop() == 0


async def test_other_settings_are_told_and_left_alone(tmp_path: Path, folder: Folder) -> None:
    async with LockedServer(tmp_path) as server:
        assert folder.command("broker", "apply", "cli_orders:app", LINKSPAN_BROKER=server.admin_url).returncode == 0
        broker = NatsBroker(server.url, runtime=system(), user="u", password="secret")
        await broker.open()
        config = await broker.admin.stream("cli.orders.v1.events")
        await broker.admin.request("STREAM.UPDATE.cli_orders_v1_events", {**config, "duplicate_window": 60_000_000_000})

        checked = folder.command("broker", "apply", "cli_orders:app", "--check", "--json", LINKSPAN_BROKER=server.admin_url)
        applied = folder.command("broker", "apply", "cli_orders:app", LINKSPAN_BROKER=server.admin_url)
        after = await broker.admin.stream("cli.orders.v1.events")
        await broker.aclose()

    (row,) = json.loads(checked.stdout)
    assert checked.returncode == 1
    assert row == {
        "what": "stream 'cli_orders_v1_events'",
        "state": "differs in duplicate_window",
        "declared": "120000000000",
        "found": "60000000000",
    }
    assert applied.returncode == 0
    assert "differs in duplicate_window" in applied.stdout
    assert after["duplicate_window"] == 60_000_000_000


async def test_login_that_may_not_apply_is_told_what_it_lacks(tmp_path: Path, folder: Folder) -> None:
    async with LockedServer(tmp_path) as server:
        done = folder.command("broker", "apply", "cli_orders:app", LINKSPAN_BROKER=server.app_url)

    assert done.returncode == 2
    assert "this login may not create it" in done.stderr


def test_memory_broker_has_nothing_to_apply(folder: Folder) -> None:
    done = folder.command("broker", "apply", "cli_orders:app", LINKSPAN_BROKER="memory://")

    assert done.returncode == 2
    assert "there is nothing to apply" in done.stderr
