"""The demo's picture and verdict, from figures made by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from examples.shop.__main__ import exit_code
from examples.shop.demo.drawing import svg
from examples.shop.demo.faults import Faults
from examples.shop.demo.feed import Call
from examples.shop.demo.measure import SLOTS, Edge, Flow, Timeline, direct_edges, quantile
from examples.shop.demo.picture import place, terminal
from examples.shop.demo.run import Run
from examples.shop.demo.summary import report
from examples.shop.reconcile import Reconciliation

if TYPE_CHECKING:
    from pathlib import Path

EDGES = [
    Edge("direct", "customer", "storefront", "place_order", (0.002, 0.003, 0.2), failed=1),
    Edge("durable", "orders", "payments", "Charge <&>", ()),
]
TIMELINE = Timeline(
    begin=100.0,
    seconds=10.0,
    flows=(Flow("placed", "orders/s", (1.0,) * SLOTS), Flow("checkout", "ms, slowest", (0.0,) * SLOTS)),
    events=((101.0, "a poison message"), (109.0, "payments killed")),
)


def run(*, injected: int = 8, **result: int) -> Run:
    faults = Faults(JetStreamContext(Client()), random.Random(1), injected=injected)
    return Run(100.0, [], faults, held=3, refused_by_inbox=5, parked=0, result=Reconciliation(**result))


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantile((1.0, 2.0, 3.0, 4.0), 0.5) == 3.0
    assert quantile((1.0, 2.0), 0.99) == 2.0
    assert quantile((), 0.5) == 0.0


@pytest.mark.parametrize(("seconds", "where"), [(0.0, 0.0), (0.001, 0.0), (0.1, 0.5), (10.0, 1.0), (99.0, 1.0)])
def test_the_scale_is_logarithmic_and_has_ends(seconds: float, where: float) -> None:
    assert place(seconds) == pytest.approx(where)


def test_the_terminal_shows_each_path_and_each_fault() -> None:
    lines = list(terminal(EDGES, TIMELINE))

    assert "customer → storefront" in lines[1]
    assert "3.0 ms 200.0 ms" in lines[1]
    assert lines[1].endswith("1 without an answer")
    assert "up to 1 orders/s" in lines[4]
    assert lines[-2].endswith("▲ a poison message")
    assert lines[-1].endswith("payments killed ▲")
    assert lines[-2].index("▲") < lines[-1].index("▲")


def test_the_drawing_is_well_formed_and_names_each_path_and_fault() -> None:
    text = "".join(ET.fromstring(svg(EDGES, TIMELINE)).itertext())

    assert "customer → storefront: place_order" in text
    assert "orders → payments: Charge <&>" in text
    assert "payments killed" in text


def test_calls_without_an_answer_are_counted() -> None:
    calls = [Call("get_order", 1.0, 0.1, "ok"), Call("get_order", 1.0, 2.0, "deadline_exceeded"), Call("get_order", 1.0, 0.1, "not_found")]

    found = {edge.what: edge for edge in direct_edges(calls)}

    assert (found["get_order"].failed, found["get_order"].seconds) == (1, (0.1, 0.1, 2.0))
    assert found["place_order"].seconds == ()


def test_what_adds_up_ends_with_0_and_what_does_not_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "orders.log").write_text("a clue")

    assert exit_code(run(), tmp_path, kept_in=tmp_path / "kept") == 0
    assert exit_code(run(lost=1), tmp_path, kept_in=tmp_path / "kept") == 1

    assert (tmp_path / "kept" / "orders.log").read_text() == "a clue"
    assert str(tmp_path / "kept") in capsys.readouterr().out


def test_a_copy_with_an_effect_is_not_called_suppressed() -> None:
    told = report(run(double_effects=2, orders=7))

    assert (told["duplicates_injected"], told["duplicates_suppressed"], told["double_effects"]) == (8, 6, 2)
    assert told["reconciled"] is False
