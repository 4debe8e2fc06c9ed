"""Names and header blocks on NATS, and reply subjects of both formats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkspan.brokers.nats import NatsBroker
from linkspan.brokers.nats_admin import consumer_of, stream_of
from linkspan.brokers.nats_consumer import NatsDelivery, own_headers
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.testing.clock import fake_runtime


def test_stream_is_the_topic_with_underscores() -> None:
    assert (stream_of("shop.orders.v1.events"), consumer_of("payments.eu-1")) == ("shop_orders_v1_events", "payments_eu-1")


@pytest.mark.parametrize("name", ["", ".", "a..b", "a.*", "a.>", "a b", "a\r\nPUB x", "ä", "a/b"])
def test_names_that_nats_would_misread_are_refused(name: str) -> None:
    with pytest.raises(SetupError, match="letters, digits"):
        stream_of(name)


@pytest.mark.parametrize(
    ("reply", "attempt"),
    [
        (b"$JS.ACK.s.c.1.5.5.1795324557560352293.5", 1),
        (b"$JS.ACK.s.c.12.5.5.1795324557560352293.5", 12),
        (b"$JS.ACK._.acchash.s.c.3.5.5.1795324557560352293.5.token", 3),
        (b"$JS.ACK.hub.acchash.s.c.4.5.5.1795324557560352293.5", 4),
    ],
)
def test_attempt_is_read_from_both_reply_formats(reply: bytes, attempt: int) -> None:
    generation: Any = None

    assert NatsDelivery("t", b"", b"", generation, reply).attempt == attempt


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"", b""),
        (b"NATS/1.0\r\n\r\n", b""),
        (b"NATS/1.0\r\nce-id: 1\r\n\r\n", b"ce-id: 1\r\n"),
        (b"NATS/1.0\r\nNats-Msg-Id: 1\r\nce-id: 1\r\n\r\n", b"ce-id: 1\r\n"),
        (b"NATS/1.0\r\nNats-Batch-Id: b\r\nNats-Batch-Sequence: 1\r\nNats-Msg-Id: 1\r\nce-id: 1\r\n\r\n", b"ce-id: 1\r\n"),
        (b"NATS/1.0\r\nX-First: 1\r\nNats-Msg-Id: 1\r\n\r\n", b"X-First: 1\r\nNats-Msg-Id: 1\r\n"),
        (b"NATS/1.0 503\r\n\r\n", b""),
        (b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n", b""),
        (b"\r\n", b""),
        (b"junk", b""),
        (b"xNats-junk", b""),
        (b"NATS/1.0\r\nNats-junk", b""),
    ],
)
def test_headers_of_the_server_in_front_are_cut_off(raw: bytes, headers: bytes) -> None:
    assert own_headers(raw) == headers


async def test_subject_with_a_command_in_it_is_refused() -> None:
    broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])

    for topic, name in [("a.b", "X\r\nPUB y 0"), ("a b", "X"), ("a.>", "X"), ("a.b", "")]:
        with pytest.raises(Error) as caught:
            broker._subject(Outgoing(topic, name, 1, "i", "k", b"", b""))
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_id_that_could_end_a_header_is_encoded() -> None:
    broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])

    headers = broker._headers(Outgoing("a.b", "X", 1, "i\r\nEvil: 1ü", "k", b"ce-id: x\r\n", b""), b"")

    assert headers == b"Nats-Msg-Id: i%0D%0AEvil:%201%C3%BC\r\nce-id: x\r\n"


async def test_closed_broker_refuses_in_words() -> None:
    broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])

    with pytest.raises(Error, match="not connected") as caught:
        await broker.publish(Outgoing("a.b", "X", 1, "i", "k", b"", b""))

    assert caught.value.code is Code.UNAVAILABLE
    await asyncio.gather(broker.aclose(), broker.aclose())
