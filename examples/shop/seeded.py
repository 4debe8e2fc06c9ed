"""Orders of the UCI Online Retail layout from a seed: the same seed and count write the same file.

Dirty rows and cancellations come along in about the shares that the real data has. It imports nothing of linkspan.
"""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from examples.shop.orders_csv import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["seeded_rows", "write_seeded"]

_OPENING = datetime(2010, 12, 1, 8, 0, tzinfo=UTC)
_NOUNS = ("LANTERN", "MUG", "CLOCK", "TEA SET", "CUSHION", "BUNTING", "LUNCH BOX", "DOORMAT", "PEG BAG", "NIGHT LIGHT")
_WORDS = ("RED", "IVORY", "RETRO", "WOODEN", "PAISLEY", "GIANT", "SMALL", "VINTAGE", "SPOTTY", "TIN")
_COUNTRIES = ("United Kingdom", "Germany", "France", "EIRE", "Norway")


class _Article(NamedTuple):
    sku: str
    name: str
    cents: int


class _Order(NamedTuple):
    number: str
    at: str
    customer: str
    country: str


def write_seeded(path: Path, seed: int, count: int) -> None:
    """Write a CSV file with `count` orders, and the cancellations and dirty rows that come with them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(seeded_rows(seed, count))


def seeded_rows(seed: int, count: int) -> Iterator[list[str]]:
    """Yield the rows of `count` orders in the order of time."""
    chance = random.Random(seed)
    articles = [_article(chance, number) for number in range(200)]
    number, at = 536_365, _OPENING
    sold: list[list[str]] = []
    for _ in range(count):
        at += timedelta(minutes=chance.randint(1, 12))
        customer = f"{chance.randint(12_346, 12_746)}.0" if chance.random() < 0.8 else ""
        order = _Order(str(number), f"{at:%Y-%m-%d %H:%M:%S}", customer, chance.choice(_COUNTRIES))
        rows = [_line(chance, chance.choice(articles), order) for _ in range(1 + min(int(chance.expovariate(1 / 6)), 60))]
        if chance.random() < 0.1:
            rows.append(_line(chance, _Article("POST", "POSTAGE", 1_800), order))
        yield rows[0]
        yield from (_spoilt(chance, row) if chance.random() < 0.01 else row for row in rows[1:])
        sold.append(rows[0])
        number += 1
        if chance.random() < 0.2:
            yield _cancellation(chance, chance.choice(sold[-50:]), f"C{number}", f"{at:%Y-%m-%d %H:%M:59}")
            number += 1


def _article(chance: random.Random, number: int) -> _Article:
    name = f"{chance.choice(_WORDS)} {chance.choice(_NOUNS)}"
    return _Article(f"{20_000 + number * 7}{chance.choice(('', '', 'A', 'B'))}", name, chance.randint(19, 2_000))


def _line(chance: random.Random, article: _Article, order: _Order) -> list[str]:
    pieces = chance.choice((1, 1, 2, 3, 4, 6, 6, 12, 24, 48))
    return [order.number, article.sku, article.name, str(pieces), order.at, _pounds(article.cents), order.customer, order.country]


def _pounds(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _spoilt(chance: random.Random, row: list[str]) -> list[str]:
    """Break one column, as real files do."""
    column, value = chance.choice(((5, "0.0"), (3, f"-{row[3]}"), (4, "yesterday"), (1, ""), (5, "n/a"), (3, "a few")))
    return [value if index == column else text for index, text in enumerate(row)]


def _cancellation(chance: random.Random, sold: list[str], number: str, at: str) -> list[str]:
    """Give back a line sold before, in whole or in part; now and then at a price that nobody paid."""
    _, sku, name, pieces, _, price, customer, country = sold
    asked = price if chance.random() < 0.8 else f"1{price}"
    return [number, sku, name, f"-{chance.randint(1, int(pieces))}", at, asked, customer, country]
