"""Names and header blocks on NATS, and reply subjects of both formats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from linkspan.brokers.nats import NatsBroker
from linkspan.brokers.nats_admin import consumer_of, stream_of
from linkspan.brokers.nats_consumer import Generation, NatsDelivery, PullSubscription, own_headers
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.testing.clock import fake_runtime

REFUSALS = st.sampled_from(
    [
        b'{"error":{"code":400,"err_code":10201,"description":"x"},"stream":"s","seq":0}',
        b'{"error":null}',
        b"{}",
        b"[]",
        b"",
        b'{"error":"\xff"}',
    ]
)
STATUSES = st.tuples(st.sampled_from([b"100", b"408 Request Timeout", b"409 Batch Completed", b"503", b"999"]), st.integers(0, 10**8))


class Wire:
    """Takes what is sent."""

    def send(self, *_: bytes) -> None: ...


class Detached:
    """A channel that is not connected."""

    wire: Any = Wire()
    runtime = fake_runtime()[0]
    link = None

    admin: Any = None

    def inbox(self) -> str:
        return "_INBOX.x"

    def forget(self, _: PullSubscription) -> None: ...


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


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.just(b"_INBOX.x.1")), st.binary(max_size=60), st.one_of(st.binary(max_size=80), REFUSALS))
def test_any_answer_to_a_publish_ends_it_with_a_coded_error(subject: bytes, raw: bytes, data: bytes) -> None:
    async def run() -> None:
        broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])
        broker._inbox = b"_INBOX.x."
        future = asyncio.get_running_loop().create_future()
        broker._pending[1] = (future, "a.b")

        broker._on_puback(subject, b"", raw, data)
        broker._on_puback(b"_INBOX.x.1", b"", raw, data)

        assert future.done()
        error = future.exception()
        assert error is None or isinstance(error, Error)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"s","seq":0}', Code.UNAVAILABLE),
        (b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"}}', Code.INVALID_ARGUMENT),
        (b'{"error":{"code":500,"err_code":10047,"description":"storage resources exceeded"}}', Code.UNAVAILABLE),
        (b"{}", Code.UNAVAILABLE),
    ],
    ids=["full", "too large", "no disk", "nothing"],
)
async def test_a_refusal_is_no_confirmation_and_says_whether_another_try_helps(answer: bytes, code: Code) -> None:
    broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])
    broker._inbox = b"_INBOX.x."
    future = asyncio.get_running_loop().create_future()
    broker._pending[1] = (future, "a.b")

    broker._on_puback(b"_INBOX.x.1", b"", b"", answer)

    with pytest.raises(Error) as caught:
        future.result()
    assert caught.value.code is code


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.builds(b"NATS/1.0 %b\r\nNats-Pending-Messages: %d\r\n\r\n".__mod__, STATUSES)))
def test_any_status_on_a_pull_keeps_the_prefetch_bound(raw: bytes) -> None:
    async def run() -> None:
        subscription = PullSubscription(Detached(), "a.b", "g", lambda _: None, 10)
        generation = Generation(subscription, Detached.wire, "_INBOX.x")
        generation.pull()

        generation.receive(b"_INBOX.x.1", b"", raw, b"")

        assert 0 <= generation.outstanding + generation.unsettled <= 10

    asyncio.run(run())


async def test_closed_broker_refuses_in_words() -> None:
    broker = NatsBroker("nats://127.0.0.1:1", runtime=fake_runtime()[0])

    with pytest.raises(Error, match="not connected") as caught:
        await broker.publish(Outgoing("a.b", "X", 1, "i", "k", b"", b""))

    assert caught.value.code is Code.UNAVAILABLE
    await asyncio.gather(broker.aclose(), broker.aclose())
