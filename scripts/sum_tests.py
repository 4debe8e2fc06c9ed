"""Print how many tests of a JUnit report passed, failed and were skipped, in this order."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def sums(report: str) -> tuple[int, int, int]:
    """Add up all suites of a report; an error outside of a test's body counts as a failure."""
    passed = failed = skipped = 0
    for suite in ET.fromstring(report).iter("testsuite"):  # noqa: S314 - written by our own pytest a moment ago
        bad = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        left_out = int(suite.get("skipped", "0"))
        passed += max(0, int(suite.get("tests", "0")) - bad - left_out)
        failed += bad
        skipped += left_out
    return passed, failed, skipped


def main() -> int:
    """Read the report named on the command line."""
    print(*sums(Path(sys.argv[1]).read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
