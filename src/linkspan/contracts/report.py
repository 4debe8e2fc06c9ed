"""What a check found, for people, for GitHub, for code-scanning tools (SARIF 2.1.0) and for programs (JSON)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from linkspan.contracts.places import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from linkspan.contracts.compat import Finding
    from linkspan.contracts.places import Place

__all__ = ["FORMS", "Item", "Report", "Topic", "item_of"]

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Topic:
    """What can be wrong: a rule, or a fault of stored messages. `id` never changes its meaning."""

    id: str
    says: str
    instead: str
    level: Level = "error"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is wrong: `where` is a full name or a stored message, `against` the versions or the store."""

    topic: Topic
    where: str
    sentence: str
    against: str
    place: Place | None = None
    fields: dict[str, Any] = dataclass_field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Report:
    """All of a check: `notes` are sentences that are no fault; `facts` are for the JSON form."""

    items: list[Item]
    notes: list[str]
    facts: dict[str, Any]
    topics: Sequence[Topic] = ()

    @property
    def errors(self) -> int:
        """Return how many items are more than warnings."""
        return sum(item.topic.level == "error" for item in self.items)


def item_of(finding: Finding, known: Mapping[str, Place]) -> Item:
    """Put a finding where it can be mended: at the line of its declaration, or of the closest one that is left."""
    rule, change = finding.rule, finding.change
    return Item(
        Topic(rule.id, rule.says, rule.instead, rule.level),
        change.where,
        f"{change.where} was {change.was}, is {change.now}.",
        f"version {', '.join(map(str, finding.versions))}",
        nearest(change.near, known),
        {"was": change.was, "now": change.now, "versions": list(finding.versions)},
    )


# --- for people ------------------------------------------------------------------------------------

_COLOURS: Final = {"error": "31", "warning": "33"}


def as_text(report: Report, *, colour: bool = False) -> str:
    """Write a paragraph an item: place, rule, what was and is, against what, and what to do."""
    lines: list[str] = []
    for item in report.items:
        place = f"{item.place.file}:{item.place.line}: " if item.place else ""
        head = f"{item.topic.level} {item.topic.id}"
        lines.append(place + (f"\033[1;{_COLOURS[item.topic.level]}m{head}\033[0m" if colour else head))
        lines.append(f"    {item.sentence} ({item.against})")
        lines.append(f"    {item.topic.instead}")
    return "\n".join([*lines, *report.notes, ""])


# --- for GitHub ------------------------------------------------------------------------------------


def as_github(report: Report, **_: object) -> str:
    """Write workflow commands, which GitHub shows at the lines of a pull request; then the notes."""
    lines: list[str] = []
    for item in report.items:
        where = {"file": item.place.file, "line": str(item.place.line)} if item.place else {}
        named = {**where, "title": item.topic.id}
        properties = ",".join(f"{name}={_escaped(value, more=True)}" for name, value in named.items())
        lines.append(f"::{item.topic.level} {properties}::{_escaped(f'{item.sentence} ({item.against}) {item.topic.instead}')}")
    return "\n".join([*lines, *report.notes, ""])


def _escaped(text: str, *, more: bool = False) -> str:
    """Escape as the runner's toolkit does: in properties `:` and `,` too."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if more else text


# --- for programs ----------------------------------------------------------------------------------


def as_json(report: Report, **_: object) -> str:
    """Write one object; `format` counts up when a field changes its meaning."""
    items = [
        {
            "rule": item.topic.id,
            "level": item.topic.level,
            "where": item.where,
            "file": item.place.file if item.place else None,
            "line": item.place.line if item.place else None,
            "message": item.sentence,
            "against": item.against,
            "instead": item.topic.instead,
            **item.fields,
        }
        for item in report.items
    ]
    return json.dumps({"format": 1, "findings": items, "notes": report.notes, **report.facts}, indent=2, ensure_ascii=False) + "\n"


_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_sarif(report: Report, **_: object) -> str:
    """Write a SARIF 2.1.0 log (OASIS, errata 01) with one run."""
    topics = {topic.id: topic for topic in (*report.topics, *(item.topic for item in report.items))}
    order = {id_: at for at, id_ in enumerate(topics)}
    driver = {"name": "linkspan", "rules": [_rule(topic) for topic in topics.values()]}
    results = [_result(item, order[item.topic.id]) for item in report.items]
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {"ROOT": {"description": {"text": "The folder in which the check ran."}}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(topic: Topic) -> dict[str, Any]:
    return {
        "id": topic.id,
        "shortDescription": {"text": topic.says},
        "help": {"text": topic.instead},
        "defaultConfiguration": {"level": topic.level},
    }


def _result(item: Item, index: int) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": item.where}]}
    if item.place:
        outside = item.place.file.startswith("/")
        artifact = {"uri": f"file://{quote(item.place.file)}"} if outside else {"uri": quote(item.place.file), "uriBaseId": "ROOT"}
        location["physicalLocation"] = {"artifactLocation": artifact, "region": {"startLine": item.place.line}}
    return {
        "ruleId": item.topic.id,
        "ruleIndex": index,
        "level": item.topic.level,
        "message": {"text": f"{item.sentence} ({item.against}) {item.topic.instead}"},
        "locations": [location],
        "partialFingerprints": {"change/v1": hashlib.sha256(f"{item.topic.id} {item.sentence}".encode()).hexdigest()[:32]},
    }


FORMS: Final[Mapping[str, Callable[..., str]]] = {"text": as_text, "github": as_github, "sarif": as_sarif, "json": as_json}
