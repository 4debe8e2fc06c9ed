"""Scheduled messages on a real NATS server: listed, taken back by the command line, kept over a kill, and sent when they are due."""

from __future__ import annotations

import getpass
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import Folder, Running, until

APP = "cli_orders:app"
"""The harness runs the app under this name."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app", Path(__file__).with_name("scheduled_reminders.py"))


def remind(run: Running, order_id: str, after: float) -> Any:
    request = urllib.request.Request(
        f"{run.address}/cli.reminders.v1.Reminders/Remind",
        json.dumps({"orderId": order_id, "after": after}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def reminded(folder: Folder) -> list[str]:
    return [order_id for (order_id,) in folder.query("shop", "select order_id from reminded order by rowid")]


def test_scheduled_messages_are_listed_cancelled_and_sent_after_a_kill(folder: Folder) -> None:
    with Running(folder) as run:
        ids = {order: remind(run, order, after)["id"] for order, after in (("b", 3.0), ("a", 2.5), ("far", 3_600.0), ("not", 2.0))}
        rows = folder.rows("outbox", "scheduled", "list", APP)
        numbers = {row["key"]: str(row["number"]) for row in rows}
        done = folder.command("outbox", "scheduled", "cancel", APP, numbers["not"], "--why", "sold out")
        again = folder.command("outbox", "scheduled", "cancel", APP, numbers["not"], "--why", "sold out")
        run.kill()
    with Running(folder, name="again") as run:
        until(lambda: len(reminded(folder)) >= 2, "both that are due were sent")
        left = folder.rows("outbox", "scheduled", "list", APP, "--service", "shop")
        assert run.stop() == 0

    assert [(row["key"], row["id"]) for row in rows] == [(order, ids[order]) for order in ("not", "a", "b", "far")]
    assert (rows[0]["service"], rows[0]["type"]) == ("shop", "cli.reminders.v1.Reminded")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Cancelled.\n", "")
    assert again.returncode == 2
    assert f"no scheduled message {numbers['not']}: it has left, or was cancelled" in again.stderr
    assert reminded(folder) == ["a", "b"]
    assert [row["key"] for row in left] == ["far"]
    audit = folder.query("shop", "select action, who, why, id, type from linkspan_audit")
    assert audit == [("cancel", getpass.getuser(), "sold out", ids["not"], "cli.reminders.v1.Reminded")]


def test_nothing_scheduled_says_so(folder: Folder) -> None:
    with Running(folder) as run:
        done = folder.command("outbox", "scheduled", "list", APP)
        wrong = folder.command("outbox", "scheduled", "cancel", APP, "7", "--why", "x", "--service", "nobody")
        assert run.stop() == 0

    assert (done.returncode, done.stdout) == (0, "Nothing is scheduled.\n")
    assert (wrong.returncode, "There is no service 'nobody'" in wrong.stderr) == (2, True)
