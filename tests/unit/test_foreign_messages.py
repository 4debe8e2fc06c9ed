"""What a foreign message becomes, whatever its headers and body are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from linkspan import Context, Error, Service, SetupError
from linkspan.brokers.memory import MemoryBroker
from linkspan.brokers.nats_consumer import NatsDelivery
from linkspan.content import decode_content
from linkspan.envelope import read
from linkspan.incoming.foreign import ForeignReader, ForeignSource
from linkspan.runtime import system
from tests.unit.durable import Charge, Placed

if TYPE_CHECKING:
    from linkspan.ports import Delivery

BODY = b'{"order":"k","number":7}'


@dataclass
class Arrived:
    """A delivery of the NATS adapter, without its server."""

    headers: bytes
    data: bytes = BODY
    topic: str = "ORDERS"
    attempt: int = 1
    place: str = "5-1700000000000000000"
    stored: float = 1_700_000_000.0

    def ack(self) -> None:
        """Do nothing."""

    def nack(self, delay: float = 0.0) -> None:
        """Do nothing."""

    def beat(self) -> None:
        """Do nothing."""


def translated(delivery: Any) -> Delivery:
    reader = ForeignReader(ForeignSource("orders.placed", Placed), MemoryBroker(runtime=system()), "mail")
    return reader.translated(delivery)


def test_plain_message_gets_the_attributes_that_it_lacks() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    came = Arrived(f"content-type: application/json\r\ncorrelation_id: flow 7\r\ntraceparent: {trace}\r\n".encode())
    made = translated(came)
    envelope = read(made.headers)
    assert (envelope.id, envelope.source, envelope.type) == (came.place, "/foreign/orders.placed", "durable.test.v1.Placed")
    assert (envelope.key, envelope.correlation, envelope.trace, envelope.time) == ("k", "flow 7", trace, "2023-11-14T22:13:20.000Z")
    assert (made.data, envelope.content_type, made.topic) == (BODY, "application/json", "orders.placed")


def test_cloudevent_stays_as_it_is() -> None:
    for headers in (b"ce-id: 1\r\n", b"Content-Type: application/cloudevents+json\r\n"):
        came = Arrived(headers)
        assert translated(came) is came


ODD = (b"traceparent: x\r\n", "correlation_id: é\r\n".encode(), b"correlation_id: \x00\r\n", b"content-type: a b/c\r\n", b"\xff\r\n")
CONTENT_TYPES = ("", "application/json", "application/msgpack", "text/plain", "é")


@pytest.mark.parametrize("headers", ODD)
def test_odd_headers_are_left_out(headers: bytes) -> None:
    envelope = read(translated(Arrived(headers)).headers)
    assert (envelope.trace, envelope.correlation) == ("", "")


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.binary(max_size=200), st.binary(max_size=100), st.sampled_from(CONTENT_TYPES))
def test_any_bytes_become_a_message_that_can_be_held(block: bytes, data: bytes, content_type: str) -> None:
    made = translated(Arrived(f"content-type: {content_type}\r\n".encode() + block, data))
    try:
        decode_content(Placed, made.data, read(made.headers, made.data).content_type)
    except Error as error:
        assert error.code.value == "invalid_argument"  # noqa: PT017 - it may pass as well


def test_place_is_read_from_either_form_of_an_acknowledgement_subject() -> None:
    for reply in (b"$JS.ACK.ORDERS.c.1.5.9.1700000000000000000.0", b"$JS.ACK.domain.hash.ORDERS.c.1.5.9.1700000000000000000.0.token"):
        delivery = NatsDelivery("ORDERS", b"", BODY, None, reply)  # type: ignore[arg-type]  # its generation is not asked
        assert (delivery.place, delivery.stored) == ("5-1700000000000000000", 1_700_000_000.0)


def test_what_cannot_be_read_is_refused_where_it_is_declared() -> None:
    mail = Service("mail")

    async def note(ctx: Context, event: Placed) -> None:
        """Do nothing."""

    for subject in ("", "a b", "a..b", ">", "a.>.b"):
        with pytest.raises(SetupError, match="write a NATS subject"):
            mail.reads(subject, Placed)
    with pytest.raises(SetupError, match="write its name"):
        mail.reads("orders", Placed, stream="a.b")
    with pytest.raises(SetupError, match="name an event class with an order key"):
        mail.reads("orders", int)
    mail.reads("orders", Placed)
    with pytest.raises(SetupError, match="reads 'orders' twice"):
        mail.reads("orders", Charge)
    with pytest.raises(SetupError, match=r"reads 'orders' without a handler: add @mail\.on\(Placed\)"):
        mail.check()
    mail.on(Placed)(note)
    mail.check()
