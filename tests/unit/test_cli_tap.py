"""`linkspan tap`: what is chosen, when it begins, and how a message is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pytest

from linkspan import Contract, Event, Message, Oneof, SetupError, Timestamp, field, mapping, oneof, repeated
from linkspan.cli.declared import chosen_topics, groups_of, topics_of, types_of
from linkspan.cli.shown import content, masked, shown_key
from linkspan.cli.tap import Look, _line, moment_of, tap_of
from linkspan.envelope import JSON, Envelope, prefix, render
from linkspan.ports import Seen
from tests.unit.app_shop import TABLE, Placed, app_of, orders_service, reacting

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import App, Context

contract = Contract("tapping.v1")


class Person(Message):
    name: str = field(1, pii=True)
    city: str = field(2)


class Card(Message):
    number: str = field(1, pii=True)


class Moved(Event):
    email: str = field(1, key=True, pii=True)
    person: Person | None = field(2, default=None)
    others: list[Person] = repeated(3)
    named: dict[str, Person] = mapping(4)
    at: Timestamp | None = field(5, default=None)
    by: Oneof[Literal["cash"], str] | Oneof[Literal["card"], Card] | None = oneof(cash=6, card=7)
    note: str = field(8)


async def thank(ctx: Context, event: Placed) -> None:
    """Do nothing."""


def shop(folder: Path) -> App:
    return app_of(folder, orders_service(), reacting("mail", thank, migrations=[TABLE]))


# --- choosing ---


async def test_topics_and_groups_are_those_of_the_running_app(tmp_path: Path) -> None:
    async with shop(tmp_path) as app:
        running = app.running.values()
        assert topics_of(app) == sorted({topic for each in running for topic in each.topics})
        assert sorted(groups_of(app)) == sorted(group for each in running for group in each.groups)


def test_names_choose_topics_and_types(tmp_path: Path) -> None:
    app = shop(tmp_path)
    events, commands = "app.shop.v1.events", "app.shop.v1.commands"

    assert chosen_topics(app, []) == {events: None, commands: None}
    assert chosen_topics(app, [events]) == {events: None}
    assert chosen_topics(app, ["app.shop.v1"]) == {events: None, commands: None}
    assert chosen_topics(app, ["Placed"]) == {events: {"app.shop.v1.Placed"}}
    assert chosen_topics(app, ["Orders.Place", "app.shop.v1.Placed"]) == {
        commands: {"app.shop.v1.Orders.Place"},
        events: {"app.shop.v1.Placed"},
    }
    assert chosen_topics(app, ["Placed", events]) == {events: None}
    assert types_of(app)["app.shop.v1.Placed"] == (events, Placed)


def test_unknown_name_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"'Plcaed' is no topic and no message of this app: name one of app.shop.v1.commands, .*Placed"):
        chosen_topics(shop(tmp_path), ["Plcaed"])


@pytest.mark.parametrize(
    ("text", "moment"),
    [("", None), ("all", 0.0), ("90s", 910.0), ("1.5m", 910.0), ("1h", -2600.0), ("1970-01-01T00:10:00Z", 600.0)],
)
def test_moment_is_read(text: str, moment: float | None) -> None:
    assert moment_of(text, 1000.0) == moment


@pytest.mark.parametrize("text", ["yesterday", "10", "10x", "-5m", "m"])
def test_wrong_moment_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match=f"The moment '{text}' cannot be read: write 10m"):
        moment_of(text, 1000.0)


def test_broker_without_a_tap_says_so() -> None:
    broker: Any = object()
    with pytest.raises(SetupError, match="cannot be watched from another process"):
        tap_of(broker, print)


# --- showing ---

MOVED = Moved(
    email="ada@example.org",
    person=Person(name="Ada", city="London"),
    others=[Person(name="Bob", city="Paris")],
    named={"x": Person(name="Cy", city="Rome")},
    at=Timestamp.from_datetime(datetime(2026, 1, 1, tzinfo=UTC)),
    by=Oneof("card", Card(number="4711")),
    note="moved",
)


def test_personal_data_is_masked_however_deep() -> None:
    shown = masked(MOVED)

    assert shown == {
        "email": "***",
        "person": {"name": "***", "city": "London"},
        "others": [{"name": "***", "city": "Paris"}],
        "named": {"x": {"name": "***", "city": "Rome"}},
        "at": "2026-01-01T00:00:00Z",
        "card": {"number": "***"},
        "note": "moved",
    }
    assert masked(MOVED, raw=True)["person"] == {"name": "Ada", "city": "London"}


def test_key_with_personal_data_is_masked_too() -> None:
    envelope = Envelope("1", "/x", "tapping.v1.Moved", "ada@example.org")

    assert (shown_key(Moved, envelope), shown_key(None, envelope), shown_key(Moved, envelope, raw=True)) == (
        "***",
        "***",
        "ada@example.org",
    )
    assert shown_key(Placed, Envelope("1", "/x", "t", "7")) == "7"


def test_what_cannot_be_decoded_is_counted_not_shown() -> None:
    envelope = Envelope("1", "/x", "tapping.v1.Moved")

    assert content(None, envelope, b"secret") == "6 bytes of a type that this app does not know"
    assert content(Moved, envelope, b"\xff\xff") == "2 bytes that cannot be decoded"
    assert content(Moved, Envelope("1", "/x", "tapping.v1.Moved", content_type=JSON), b'{"note": "n"}') == {"note": "n"}


def seen(headers: bytes) -> Seen:
    return Seen("tapping.v1.events", 5, 1_700_000_000.5, headers, MOVED.to_binary(), 0)


def test_line_holds_what_a_message_is_and_no_personal_data() -> None:
    envelope = Envelope("id-1", "/x", "tapping.v1.Moved", "ada@example.org", trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    types: dict[str, tuple[str, Any]] = {"tapping.v1.Moved": ("tapping.v1.events", Moved)}
    headers = render(prefix("tapping.v1.Moved", "/x"), envelope)

    line = _line(seen(headers), None, types, Look())
    assert "tapping.v1.Moved" in line
    assert "key=*** id=id-1 from=/x" in line
    assert not any(word in line for word in ("ada@", "Ada", "4711"))
    told = json.loads(_line(seen(headers), {"tapping.v1.Moved"}, types, Look(as_json=True)))
    assert (told["trace"], told["correlation"], told["number"], told["stored"]) == ("a" * 32, "id-1", 5, "2023-11-14T22:13:20.500+00:00")
    assert _line(seen(headers), {"tapping.v1.Other"}, types, Look()) == ""


def test_foreign_message_is_told_by_its_problem() -> None:
    assert "has no 'id' attribute" in _line(seen(b"x: y\r\n"), None, {}, Look())
