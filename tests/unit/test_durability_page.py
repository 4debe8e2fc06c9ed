"""The page of unsafe settings says what the tables say, and the tables say enough."""

from __future__ import annotations

from linkspan.ports import LEVELS
from scripts import make_durability_page


def test_page_is_made_from_the_tables() -> None:
    made = make_durability_page.page()
    assert made == make_durability_page.PAGE.read_text(encoding="utf-8"), "run python scripts/make_durability_page.py"


def test_every_unsafe_setting_has_a_name_an_explanation_and_a_cure() -> None:
    rows = [each for _, table in make_durability_page.SECTIONS for each in table]

    assert len(rows) >= 20
    assert len({each.name for each in rows}) == len(rows)
    assert all(each.level in LEVELS and each.risk and each.cure and each.setting for each in rows)
