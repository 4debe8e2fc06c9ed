"""`linkspan doctor` on real engines: beside a running app, without one, and where something is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.integration.command_line import Folder, Running, until

if TYPE_CHECKING:
    from pathlib import Path


def examined(folder: Folder, **settings: str) -> tuple[int, dict[str, Any]]:
    done = folder.command("doctor", "cli_orders:app", "--json", **settings)
    return done.returncode, {row["what"]: row for row in json.loads(done.stdout)}


def test_it_reads_the_engines_beside_a_running_app_and_without_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "app")
    with Running(folder) as run:
        server = folder.servers
        beside = examined(folder)
        assert folder.servers == server
        assert run.stop() == 0
    until(lambda: folder.servers == [], "the embedded server is gone")
    alone = examined(folder)
    until(lambda: folder.servers == [], "the server that was started for the question is gone")

    for code, rows in (beside, alone):
        assert code == 0
        assert rows["broker"]["state"] in {"ok", "note"}  # a note where the file system keeps nothing over a power cut
        assert "sync_interval 'always'" in rows["broker"]["finding"]
        assert "synchronous 2" in rows["store of mail"]["finding"]
        assert rows["outbox of orders"]["finding"] == "0 waiting, oldest 0.0 s"
        assert rows["dead letters of mail"]["finding"] == "0"


def test_broker_that_is_away_is_bad(tmp_path: Path) -> None:
    code, rows = examined(Folder(tmp_path / "app"), LINKSPAN_BROKER="nats://ada:secret-word@127.0.0.1:1")

    assert (code, rows["broker"]["state"]) == (1, "bad")
    assert rows["setting broker"]["finding"] == "nats://127.0.0.1:1"
    assert "secret-word" not in json.dumps(rows)
    assert rows["store of mail"]["finding"] == "not there yet: run the app once"
