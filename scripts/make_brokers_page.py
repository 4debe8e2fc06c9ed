"""Write docs/reference/brokers.md: what the public broker suite found on each broker, and what differs.

`--run` runs the suite on all of them first (minutes; needs Apache Kafka, see scripts/get_kafka.sh) and records the outcomes in
docs/reference/brokers.json, from which the page is made. `--check` changes nothing and fails where the page is not what the record says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from linkspan.testing.broker_contract import BrokerContract

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs/reference/brokers.json"
PAGE = ROOT / "docs/reference/brokers.md"
SUITES = ("tests/contract/test_brokers.py", "tests/kafka/test_contract.py")
BROKERS = {
    "TestMemory": "memory",
    "TestNats": "NATS",
    "TestNatsCluster": "NATS, three nodes",
    "TestNatsPublicApi": "NATS, public API",
    "TestKafka": "Kafka",
}
LACKS = {
    "atomic": "a batch may be stored in part: it fails with ABORTED, and goes again singly; what is stored twice, the inbox drops",
    "dedupe": "ids are not remembered: what is sent again is stored again, and the inbox drops it",
    "drift": "nothing has settings that could differ",
    "replay": "a lost connection brings nothing again by itself: what is in hand stays so, and can be settled afterwards",
}
"""What it means that a broker lacks something, behind `lacks <name>: `."""
BESIDE = (
    ("what is a lane", "a subject's last token", "a partition, 64 to a topic"),
    ("order", "of the whole topic; of a lane, where a group is read by lanes", "of a lane"),
    ("members that share a group without lanes", "share its messages", "share its lanes; a change takes a rebalance"),
    ("a delivery that nobody settles", "comes again after 30 s without `beat`", "stays in hand until its process ends or loses the lane"),
    ("a message that is given back", "waits on the server, its room is free", "waits in the process and keeps its room"),
    (
        "settled behind an unsettled one",
        "stays settled, except after a start",
        "comes again after a crash: the place is one offset per lane",
    ),
    (
        "what an acknowledgement survives",
        "power cuts with `sync_interval: always`",
        "power cuts of one rack, with three replicas; see `doctor`",
    ),
    ("subjects of somebody else's (`reads`)", "yes", "no: refused at the start"),
    ("`linkspan tap`", "yes", "no"),
)
"""What the suite does not ask: what, on NATS, on Kafka."""


def outcomes(report: Path) -> dict[str, dict[str, str]]:
    """Return what pytest's report says of each scenario, by suite."""
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        suite = case.get("classname", "").rpartition(".")[2]
        if suite in BROKERS:
            skipped = case.find("skipped")
            bad = case.find("failure") is not None or case.find("error") is not None
            said = (skipped.get("message") or "") if skipped is not None else ""
            lacking = said.partition("this broker lacks: ")[2]
            found.setdefault(suite, {})[case.get("name", "")] = (
                "failed" if bad else f"lacks {lacking}" if lacking else f"not run: {said}" if said else "passed"
            )
    return found


def run(*chosen: str) -> dict[str, dict[str, str]]:
    """Run scenarios and return their outcomes."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", *chosen, f"--junit-xml={report}"], cwd=ROOT, check=False)
        return outcomes(report)


def record() -> None:
    """Run the suite on every broker and write down what came of it; what failed runs once more, alone on the machine."""
    found: dict[str, dict[str, str]] = {}
    for file in SUITES:
        rows = run(file)
        for suite, row in rows.items():
            for name in [name for name, said in row.items() if said == "failed"]:
                row[name] = run(f"{file}::{suite}::{name}")[suite][name]
        found |= rows
    write(found)


def write(found: dict[str, dict[str, str]]) -> None:
    """Keep the record."""
    RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def page(recorded: dict[str, dict[str, str]]) -> str:
    """Return the page."""
    suites = [suite for suite in BROKERS if suite in recorded]
    lines = [
        "# Brokers: what holds on each",
        "",
        "Every broker runs the same public suite, `linkspan.testing.BrokerContract`, on real servers that some scenarios kill. This",
        "page is made from such a run by `scripts/make_brokers_page.py --run`; do not edit it.",
        "",
        f"| what must hold | {' | '.join(BROKERS[suite] for suite in suites)} |",
        f"|---|{'---|' * len(suites)}",
    ]
    names = sorted({name for rows in recorded.values() for name in rows})
    lines += [f"| {_guarantee(name)} | {' | '.join(recorded[suite].get(name, '-') for suite in suites)} |" for name in names]
    lacking = sorted({each for rows in recorded.values() for said in rows.values() for each in _lacking(said)})
    lines += ["", "## What is lacking", "", "| lacks | what that means |", "|---|---|"]
    lines += [f"| {each} | {LACKS[each]} |" for each in lacking]
    lines += ["", "## What differs beside", "", "| | NATS JetStream | Apache Kafka |", "|---|---|---|"]
    lines += [f"| {what} | {nats} | {kafka} |" for what, nats, kafka in BESIDE]
    return "\n".join(lines) + "\n"


def _guarantee(name: str) -> str:
    scenario = getattr(BrokerContract, name, None)
    return str(scenario.__doc__).split("\n", maxsplit=1)[0] if scenario is not None else name


def _lacking(said: str) -> list[str]:
    return said.removeprefix("lacks ").split(", ") if said.startswith("lacks ") else []


def main() -> int:
    """Write or check."""
    if "--run" in sys.argv:
        record()
    made = page(json.loads(RECORD.read_text()))
    if "--check" in sys.argv:
        if made != PAGE.read_text():
            print("docs/reference/brokers.md is not what was recorded: run scripts/make_brokers_page.py")
            return 1
        return 0
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
