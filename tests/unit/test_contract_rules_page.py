"""The page of rules says what the code says, rule by rule."""

from __future__ import annotations

from pathlib import Path

from linkspan.contracts.compat import RULES
from linkspan.contracts.stored import STORED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "contract-rules.md"


def rows() -> list[str]:
    buf = [f"| `{rule.id}` | {rule.says} | {rule.instead} |" for rule in RULES if rule.group != "linkspan"]
    ours = [f"| `{rule.id}`{mark(rule.level)} | {rule.says} | {rule.instead} |" for rule in RULES if rule.group == "linkspan"]
    stored = [f"| `{topic.id}`{mark(topic.level)} | {topic.says} | {topic.instead} |" for topic in STORED]
    return [*buf, *ours, *stored]


def mark(level: str) -> str:
    return " (warning)" if level == "warning" else ""


def test_page_has_every_rule_with_its_words() -> None:
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert shown == rows()
