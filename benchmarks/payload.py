"""The values that both sides send, so that neither carries a smaller message than the other.

The event has eight fields: about 178 bytes as protobuf, about 278 as JSON. The query and its
answer have three fields, one of them a text of 160 characters.
"""

from __future__ import annotations

from typing import TypedDict

TEXT_160 = ("every order is settled once, to the cent and to the piece; " * 3)[:160]
VARIETY = 16_384


class EventValues(TypedDict):
    """The eight fields of the event."""

    order_id: str
    customer_id: str
    country: str
    cents: int
    quantity: int
    placed_at: int
    skus: list[str]
    note: str


def event_values(number: int) -> EventValues:
    """Make the fields of one event; equal numbers give equal fields."""
    scrambled = (number * 2_654_435_761) % 2**32
    return EventValues(
        order_id=f"{number:08x}-{scrambled & 0xFFFF:04x}-4b1d-9c3e-{scrambled:012x}",
        customer_id=f"customer-{scrambled % 4_372:05d}",
        country=("United Kingdom", "Netherlands", "Eire", "Germany", "France")[number % 5],
        cents=100 + scrambled % 250_000,
        quantity=1 + scrambled % 48,
        placed_at=1_767_225_600_000 + number * 37,
        skus=[f"{10_000 + (scrambled >> shift) % 80_000}A" for shift in (0, 5, 11)],
        note="leave it with the neighbour at door 12, she is at home until six in the evening",
    )


def events(count: int = VARIETY) -> list[EventValues]:
    """Make the fields of `count` events before the clock starts; a loop takes them in turn."""
    return [event_values(number) for number in range(count)]
