"""Write docs/reference/durability.md from the engines' tables of unsafe settings: `python scripts/make_durability_page.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from linkspan.brokers.kafka_settings import CLUSTER as KAFKA_CLUSTER, TOPIC as KAFKA_TOPIC
from linkspan.brokers.nats_settings import CONSUMER, SERVER, STREAM
from linkspan.stores.postgres_settings import SETTINGS as POSTGRESQL
from linkspan.stores.sqlite_attest import SETTINGS as SQLITE

if TYPE_CHECKING:
    from linkspan.ports import Unsafe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "durability.md"

HEAD = """# What an acknowledgement is worth

Every engine is asked at start what it promises, again each minute, and by `linkspan doctor`. The answer is a level:

| level | an acknowledged message and a committed change survive |
|---|---|
| `power` | power cuts, and all below |
| `process` | the death of any process, and of the engine's |
| `none` | nothing for sure |

A setting below lowers the level of its engine to the one in its row; `power` means that it is worth knowing, no more. What lowers a
level is logged as a warning once, when it is first seen, also if it was changed under a running app; `/readyz` names it under
`durability`, and `linkspan doctor` with what to do.

**What is refused.** `App(durability=...)` or `LINKSPAN_DURABILITY` says what is asked for: `power`, `process` (the default) or `any`.
A start below it ends with a sentence that names the setting and the cure; an app whose engine falls below it while it runs is not
ready until that is mended. The memory broker promises nothing and is let pass: whoever chose it has chosen.

This page is made from the tables that the code uses (`scripts/make_durability_page.py`).
"""

SECTIONS = (
    ("NATS: servers", SERVER),
    ("NATS: the stream of a topic", STREAM),
    ("NATS: the consumer of a group", CONSUMER),
    ("Kafka: a topic", KAFKA_TOPIC),
    ("Kafka: the cluster", KAFKA_CLUSTER),
    ("SQLite", SQLITE),
    ("PostgreSQL", POSTGRESQL),
)


def page() -> str:
    """Return the page as the tables are."""
    return "\n".join([HEAD, *(_section(title, table) for title, table in SECTIONS)])


def _section(title: str, table: tuple[Unsafe, ...]) -> str:
    rows = [f"| `{each.name}` | `{each.level}` | `{each.setting}` | {each.risk} | {each.cure} |" for each in table]
    return "\n".join([f"## {title}", "", "| name | leaves | setting | why | what to do |", "|---|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
