"""The table of brokers is what the last recorded run of the suite says, and the record is no wish."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from linkspan.testing.broker_contract import BrokerContract
from scripts import make_brokers_page as pages

if TYPE_CHECKING:
    from pathlib import Path

RECORDED: dict[str, dict[str, str]] = json.loads(pages.RECORD.read_text())


def test_the_page_is_what_was_recorded() -> None:
    assert pages.page(RECORDED) == pages.PAGE.read_text()


def test_nothing_recorded_has_failed_and_what_is_lacking_is_explained() -> None:
    said = {outcome for rows in RECORDED.values() for outcome in rows.values() if outcome != "passed"}

    assert all(each.startswith("lacks ") for each in said), said
    assert {name for each in said for name in each.removeprefix("lacks ").split(", ")} <= set(pages.LACKS)


def test_each_recorded_scenario_is_one_of_the_suite() -> None:
    assert {name for rows in RECORDED.values() for name in rows} <= set(BrokerContract.table())
    assert {"TestMemory", "TestNats", "TestKafka"} <= set(RECORDED)


def test_a_report_is_read_by_outcome(tmp_path: Path) -> None:
    suite = ET.Element("testsuite")
    for name, child, message in (("test_a", None, ""), ("test_b", "skipped", "this broker lacks: dedupe"), ("test_c", "failure", "x")):
        case = ET.SubElement(suite, "testcase", classname="tests.kafka.test_contract.TestKafka", name=name)
        if child is not None:
            ET.SubElement(case, child, message=message)
    report = tmp_path / "report.xml"
    ET.ElementTree(suite).write(report)

    assert pages.outcomes(report) == {"TestKafka": {"test_a": "passed", "test_b": "lacks dedupe", "test_c": "failed"}}
