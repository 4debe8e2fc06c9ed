"""`linkspan outbox reconcile`: numbers, rows and the broker's log are compared; late rows are sent with the ids that they have."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tests.integration.command_line import Folder, Running, until

if TYPE_CHECKING:
    from pathlib import Path


def test_reconcile_finds_what_is_late_or_nowhere_and_sends_what_is_late(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "app")
    with Running(folder) as run:
        for order in ("a", "a", "b"):
            run.place(order)
        until(lambda: folder.query("orders", "select count(*) from linkspan_outbox") == [(0,)], "all are sent")
        clean = folder.command("outbox", "reconcile", "cli_orders:app", "--json")
        assert clean.returncode == 0, clean.stderr + clean.stdout
        assert (clean.returncode, json.loads(clean.stdout)) == (0, [])
        assert run.stop() == 0

    with closing(sqlite3.connect(folder.path / ".linkspan" / "orders.db")) as connection:
        # One row that no relay has taken for an hour with another behind it, and one number that nobody has.
        columns = "format, at, topic, name, lane, id, key, sequence, headers, data"
        row = f"insert into linkspan_outbox ({columns}) values (1, ?, ?, ?, 1, ?, ?, ?, ?, x'')"
        ((topic,),) = connection.execute("select distinct topic from linkspan_sequence where topic like '%.events'").fetchall()
        package = topic.removesuffix(".events")
        for id_, sequence in (("late-1", 3), ("late-2", 4)):
            headers = (
                f"ce-specversion: 1.0\r\nce-type: {package}.OrderPlaced\r\nce-source: /orders\r\n"
                "ce-datacontenttype: application/protobuf\r\n"
                f"ce-id: {id_}\r\nce-time: 2026-11-22T00:00:00Z\r\nce-partitionkey: a\r\n"
            )
            connection.execute(row, (1_000.0, topic, "OrderPlaced", id_, "a", sequence, headers.encode()))
        connection.execute("update linkspan_sequence set last = 4 where topic = ? and key = 'a'", (topic,))
        connection.execute("update linkspan_sequence set last = 3 where topic = ? and key = 'b'", (topic,))
        connection.commit()

    def rows(*more: str, code: int = 1) -> list[tuple[str, str, str]]:
        found = folder.command("outbox", "reconcile", "cli_orders:app", "--json", *more)
        assert found.returncode == code, found.stderr
        return [(each["key"], each["state"], each["finding"]) for each in json.loads(found.stdout)]

    missing = ("b", "missing", "numbers 2-3 of 3 are neither in the outbox nor in the broker's log")
    late, *others = rows()
    assert (late[:2], others) == (("a", "late"), [missing])
    assert late[2].startswith("number 3 waits for ")
    assert late[2].endswith(", 1 wait behind it")
    assert rows("--resend") == [("a", "sent now", "2 sent"), missing]
    assert rows() == [missing]
    assert folder.query("orders", "select count(*) from linkspan_outbox") == [(0,)]

    with closing(sqlite3.connect(folder.path / ".linkspan" / "orders.db")) as connection:
        connection.execute("insert into linkspan_sequence (topic, key, last) values ('gone.v1.events', 'x', 3)")
        connection.commit()
    lost = "the broker has no log of this topic, and messages of 1 of its keys have left: is it the right broker?"
    assert rows() == [missing, ("", "missing", lost)]
