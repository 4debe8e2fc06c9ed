"""Traces: what the recorder keeps and what not, and how a flow is told."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Error
from linkspan.cli.trace import Flow, Passed, _names, collect
from linkspan.cli.waterfall import lines, plain, steps
from linkspan.envelope import Envelope
from linkspan.ports import Letter, LetterState
from linkspan.runtime import system
from linkspan.telemetry import record
from linkspan.telemetry.record import Recorder, Span, read_spans, ring_file
from tests.unit.app_shop import Find, Orders, Place, app_of, orders_service

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context, Handler

TRACE, FIRST, SECOND = "0" * 31 + "1", "a" * 16, "b" * 16


async def missing(ctx: Context, request: Any, call_next: Handler, /) -> Any:
    if isinstance(request, Find):
        raise Error(Code.NOT_FOUND, "There is none: take another.")
    return await call_next(ctx, request)


async def run_calls(folder: Path, recorder: Recorder, *requests: Any) -> None:
    app = app_of(folder, orders_service(middleware=[missing]))
    app.wrap(recorder)
    async with app, app.client() as client:
        for request in requests:
            operation: Any = Orders.place if isinstance(request, Place) else Orders.find
            try:
                await client.call(operation, request, key=f"key-{request.order}")
            except Error as error:
                assert error.code is Code.NOT_FOUND  # noqa: PT017 - some are meant to fail


# --- the ring ---


async def test_handler_and_call_are_kept_with_their_ids_and_no_payload(tmp_path: Path) -> None:
    recorder = Recorder(ring_file(tmp_path), system().clock)
    recorder.start()
    await run_calls(tmp_path, recorder, Place(order="secret-7"))
    recorder.close()

    spans = read_spans(ring_file(tmp_path), ["key-secret-7"])
    assert sorted((span.side, span.operation, span.code) for span in spans) == [
        ("client", "app.shop.v1.Orders.Place", "ok"),
        ("server", "app.shop.v1.Orders.Place", "ok"),
    ]
    by_side = {span.side: span for span in spans}
    assert by_side["server"].parent == by_side["client"].span
    assert by_side["server"].trace == by_side["client"].trace
    assert len(by_side["server"].sent.split()) == 1
    assert read_spans(ring_file(tmp_path), [by_side["server"].sent]) == spans
    assert read_spans(ring_file(tmp_path), [by_side["server"].trace]) == spans
    assert read_spans(ring_file(tmp_path), ["unknown"]) == []


async def test_share_of_nothing_keeps_failures_alone(tmp_path: Path) -> None:
    recorder = Recorder(ring_file(tmp_path), system().clock, share=0.0)
    recorder.start()
    await run_calls(tmp_path, recorder, Place(order="7"), Find(order="missing"))
    recorder.close()

    with closing(sqlite3.connect(ring_file(tmp_path))) as connection:
        kept = connection.execute("select distinct operation, code from spans").fetchall()
    assert kept == [("app.shop.v1.Orders.Find", "not_found")]


def span(number: int, **changes: Any) -> Span:
    made = Span(
        TRACE, f"{number:016x}", "", "one", "x.v1.Ones.Do", "direct", "server", 1000.0 + number, 0.5, 1, "ok", f"id-{number}", "c", "", ""
    )
    return made._replace(**changes)


def test_ring_forgets_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RING", 10)
    for start in (0, 20):
        recorder = Recorder(ring_file(tmp_path), system().clock)
        recorder._waiting.extend(span(number) for number in range(start, start + 20))
        recorder.start()
        recorder.close()

    assert [each.id for each in read_spans(ring_file(tmp_path), [TRACE])] == [f"id-{number}" for number in range(30, 40)]


def test_what_the_disk_cannot_take_is_told_once_and_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    recorder = Recorder(ring_file(tmp_path / "file"), system().clock)
    recorder.start()
    recorder.close()
    recorder.close()

    assert [each.message for each in caplog.records] == ["Traces cannot be kept."]


def test_nothing_kept_is_nothing_read(tmp_path: Path) -> None:
    assert read_spans(ring_file(tmp_path), ["x"]) == []


# --- names ---


def test_id_is_taken_in_each_of_its_forms() -> None:
    digits = "01a2028ccedc7599ac1825a35794583a"
    dashed = "01a2028c-cedc-7599-ac18-25a35794583a"

    assert _names(dashed) == [digits, dashed]
    assert _names(digits) == [digits, dashed]
    assert _names(f"00-{digits}-{'b' * 16}-01") == [digits]
    assert _names("my-own-key") == ["my-own-key"]


# --- the waterfall ---


def passed(stored: float, **changes: Any) -> Passed:
    envelope = Envelope("m-1", "/orders", "x.v1.Done", "k", trace=f"00-{TRACE}-{FIRST}-01", **changes)
    return Passed("x.v1.events", envelope, 1000.2, stored)


def test_steps_stand_under_what_led_to_them_with_waits_between() -> None:
    call = span(1, span=FIRST, began=1000.0, seconds=0.3, service="orders", sent="m-1")
    first = span(
        2, span="c" * 16, parent=FIRST, path="durable", service="mail", operation="x.v1.Done", began=1001.0, code="unknown", id="m-1"
    )
    second = first._replace(span=SECOND, began=1003.0, attempt=2, code="ok")
    flow = Flow([call, first, second], [passed(1000.4)])

    told = plain(steps(flow, 1010.0))

    assert [(line["depth"], line["kind"], line["what"], line["state"]) for line in told] == [
        (0, "handler", "orders answers x.v1.Ones.Do", ""),
        (1, "outbox", "x.v1.Done in the outbox of orders", ""),
        (1, "stored", "x.v1.Done stored in x.v1.events", ""),
        (2, "broker", "waits in the broker for mail", ""),
        (2, "handler", "mail handles x.v1.Done", "unknown"),
        (2, "retry", "mail waits before it tries again", ""),
        (2, "handler", "mail handles x.v1.Done, attempt 2", ""),
    ]
    seconds = [line["seconds"] for line in told]
    assert seconds == pytest.approx([0.3, 0.2, 0.0, 0.6, 0.5, 1.5, 0.5])
    text = list(lines(steps(flow, 1010.0)))
    assert len({line.index("━") for line in text if "━" in line}) > 1
    assert text[0].startswith("      0.0    300.0ms  ━")


def test_waiting_message_and_held_letter_have_no_end() -> None:
    letter = Letter(
        "mail:x.v1.events", "k", "/orders", "m-1", "x.v1.Done", b"", b"", LetterState.DEAD, attempts=3, code="internal", received=1002.0
    )
    letter.position = 4
    waiting = plain(steps(Flow(messages=[passed(0.0)]), 1010.0))
    held = plain(steps(Flow(messages=[passed(1000.4)], letters=[("mail", letter, passed(1.0).envelope)]), 1010.0))

    assert [(line["what"], line["seconds"], line["state"]) for line in waiting] == [
        ("x.v1.Done in the outbox of orders", None, "waiting for 9.8 s")
    ]
    assert (held[-1]["what"], held[-1]["state"]) == ("mail holds it as number 4", "dead after 3 tries, internal")
    assert "      -   " in next(lines(steps(Flow(messages=[passed(0.0)]), 1010.0)))


async def test_broker_that_cannot_be_read_is_a_note(tmp_path: Path) -> None:
    flow = await collect(app_of(tmp_path, orders_service()), "7")

    assert not flow.found
    assert "The broker's log was not read: This broker cannot be watched" in flow.notes[0]
