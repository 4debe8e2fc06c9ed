"""`linkspan trace` of flows that really ran: by each of their ids, with retries and held messages, with and without recorded spans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.command_line import Folder, Running, until

if TYPE_CHECKING:
    from pathlib import Path

RECORD = ("--record-traces", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def place(folder: Folder, run: Running, order: str, number: int = 1) -> str:
    """Place an order and return its trace id."""
    request = json.dumps({"orderId": order, "number": number, "note": "for Ada"})
    done = folder.command("call", "place_order", request, "--address", run.address, "--show-trace")
    assert done.returncode == 0, done.stderr
    return done.stderr.split()[1]


def told(folder: Folder, flow: str, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = folder.rows("trace", flow, *words)
    return found


def test_one_flow_is_told_by_each_of_its_ids(folder: Folder) -> None:
    with Running(folder, *RECORD) as run:
        trace = place(folder, run, "7")
        place(folder, run, "8")
        until(lambda: len(folder.query("mail", "select 1 from thanks")) == 2, "both are thanked for")
        until(lambda: any("mail handles" in line["what"] for line in told(folder, trace)), "the spans are on disk")
        found = told(folder, trace)
        message = json.loads(folder.command("tap", "--since", "all", "--limit", "1", "--json").stdout)
        others = [told(folder, message["id"]), told(folder, message["correlation"]), told(folder, f"00-{trace}-{'b' * 16}-01")]
        text = folder.command("trace", trace)
        assert run.stop() == 0
    after = told(folder, trace)

    assert [(line["depth"], line["kind"], line["what"]) for line in found] == [
        (0, "handler", "orders answers cli.orders.v1.Orders.PlaceOrder"),
        (1, "call", "orders calls cli.orders.v1.Orders.GetOrder"),
        (2, "handler", "orders answers cli.orders.v1.Orders.GetOrder"),
        (1, "outbox", "cli.orders.v1.OrderPlaced in the outbox of orders"),
        (1, "stored", "cli.orders.v1.OrderPlaced stored in cli.orders.v1.events"),
        (2, "broker", "waits in the broker for mail"),
        (2, "handler", "mail handles cli.orders.v1.OrderPlaced"),
        (3, "call", "mail calls cli.orders.v1.Orders.GetOrder"),
        (4, "handler", "orders answers cli.orders.v1.Orders.GetOrder"),
    ]
    assert others == [found, found, found]
    assert after == found
    assert len(text.stdout.splitlines()) == 9
    assert "Ada" not in text.stdout + json.dumps(found)


def test_retries_and_the_held_message_are_told(folder: Folder) -> None:
    with Running(folder, *RECORD) as run:
        trace = place(folder, run, "bug")
        until(lambda: folder.query("mail", "select 1 from linkspan_letter") != [], "it is held")
        until(lambda: sum(line["what"].startswith("mail handles") for line in told(folder, trace)) == 3, "the spans are on disk")
        found = told(folder, trace)
        assert run.stop() == 0

    assert [line["what"] for line in found if line["kind"] in {"retry", "held"} or line["what"].startswith("mail handles")] == [
        "mail handles cli.orders.v1.OrderPlaced",
        "mail waits before it tries again",
        "mail handles cli.orders.v1.OrderPlaced, attempt 2",
        "mail waits before it tries again",
        "mail handles cli.orders.v1.OrderPlaced, attempt 3",
        "mail holds it as number 1",
    ]
    assert found[-1]["state"].startswith("parked after 3 tries, unknown, due ")


def test_without_recorded_spans_the_log_and_the_stores_tell_what_they_know(folder: Folder) -> None:
    with Running(folder) as run:
        trace = place(folder, run, "bad")
        until(lambda: folder.query("mail", "select 1 from linkspan_letter") != [], "it is held")
        found = told(folder, trace)
        assert run.stop() == 0
    assert not (folder.path / ".linkspan" / "traces.db").exists()
    assert [(line["kind"], line["state"][:11]) for line in found] == [("outbox", ""), ("stored", ""), ("held", "dead after ")]


def test_unknown_id_says_where_to_look(folder: Folder) -> None:
    with Running(folder) as run:
        done = folder.command("trace", "nothing-of-the-kind")
        assert run.stop() == 0

    assert done.returncode == 2
    assert "Nothing is known of 'nothing-of-the-kind' here: look with --since" in done.stderr
