"""Spans by OpenTelemetry's API: kind, parent, ids that travel on, and nothing personal in them.

The SDK is no dependency: these tests give the API a tracer of their own, made of its classes.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from linkspan import Code, Context, Error, envelope as envelopes
from linkspan.envelope import Envelope
from linkspan.ports import Outgoing
from tests.unit.app_shop import Find, Found, Orders, Place, Placed, app_of, orders_service, reacting
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "CANARY-4711"


@dataclass
class Recorded(NonRecordingSpan):
    """A span that keeps what it is told."""

    name: str
    kind: SpanKind
    parent: int
    own: SpanContext
    attributes: dict[str, Any]
    status: list[Any] = field(default_factory=list[Any])

    def get_span_context(self) -> SpanContext:
        return self.own

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = [status, description]


class Recorder:
    """A tracer that keeps its spans; ids count upwards."""

    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    @contextmanager
    def start_as_current_span(
        self, name: str, context: Any, kind: SpanKind, attributes: Any, *, record_exception: bool, set_status_on_exception: bool
    ) -> Iterator[Recorded]:
        assert not record_exception
        assert not set_status_on_exception
        parent = trace.get_current_span(context).get_span_context()
        own = SpanContext(parent.trace_id or 1000 + len(self.spans), len(self.spans) + 1, is_remote=False, trace_flags=TraceFlags(1))
        span = Recorded(name, kind, parent.span_id, own, dict(attributes))
        self.spans.append(span)
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(trace, "get_tracer", lambda _name: made)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", ModuleType("opentelemetry.sdk.trace"))
    return made


async def test_each_hop_has_a_span_under_the_one_before(recorder: Recorder, tmp_path: Path) -> None:
    async def thank(ctx: Context, event: Placed) -> None:
        await ctx.call(Orders.find, Find(order=event.order))

    async with app_of(tmp_path, orders_service(), reacting("mail", thank)) as app, app.client() as client:
        await client.call(Orders.place, Place(order="7", note=CANARY))
        await until(lambda: len(recorder.spans) == 5, "the last hop has begun")

    assert [(span.name.rpartition(".")[2], span.kind, span.parent) for span in recorder.spans] == [
        ("Place", SpanKind.CLIENT, 0),
        ("Place", SpanKind.SERVER, 1),
        ("Placed", SpanKind.CONSUMER, 2),
        ("Find", SpanKind.CLIENT, 3),
        ("Find", SpanKind.SERVER, 4),
    ]
    assert {span.own.trace_id for span in recorder.spans} == {1000}
    assert recorder.spans[1].attributes == {"rpc.system.name": "connectrpc", "rpc.method": "app.shop.v1.Orders.Place"}
    assert recorder.spans[2].attributes["messaging.operation.type"] == "process"


async def test_failure_is_marked_without_its_text(recorder: Recorder, tmp_path: Path) -> None:
    async def find(ctx: Context, request: Find) -> Found:
        if request.order == "bug":
            raise RuntimeError(CANARY)
        raise Error(Code.NOT_FOUND, f"No order {CANARY}: check the number.")

    async with app_of(tmp_path, orders_service(find=find)) as app, app.client() as client:
        for order in ("bug", "missing"):
            with pytest.raises(Error):
                await client.call(Orders.find, Find(order=order))

    assert [span.attributes["error.type"] for span in recorder.spans] == ["internal", "RuntimeError", "not_found", "not_found"]
    assert [span.status for span in recorder.spans] == [[StatusCode.ERROR, None]] * 4
    assert CANARY not in str(recorder.spans)


async def test_programs_own_span_is_the_parent_of_its_calls_but_never_of_a_service(recorder: Recorder, tmp_path: Path) -> None:
    ambient = NonRecordingSpan(SpanContext(77, 88, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(ambient):
        async with app_of(tmp_path, orders_service()) as app, app.client(owns="*") as client:
            await client.call(Orders.find, Find())
            await client.publish(Placed(order="7"))

    assert [(span.parent, span.own.trace_id) for span in recorder.spans[:2]] == [(88, 77), (1, 77)]


async def test_message_without_a_trace_begins_one_of_its_own(recorder: Recorder, tmp_path: Path) -> None:
    """The workers were started inside a program's span, which is no reason for what they handle."""
    handled: list[str] = []

    async def thank(ctx: Context, event: Placed) -> None:
        handled.append(event.order)

    ambient = NonRecordingSpan(SpanContext(77, 88, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(ambient):
        async with app_of(tmp_path, reacting("mail", thank)) as app:
            assert app.broker is not None
            await app.broker.publish(foreign("7"))
            await until(lambda: handled == ["7"], "it is handled")

    assert [(span.parent, span.own.trace_id) for span in recorder.spans] == [(0, 1000)]


def foreign(order: str) -> Outgoing:
    """Return an event of a publisher that traces nothing."""
    kind = "app.shop.v1.Placed"
    headers = envelopes.render(envelopes.prefix(kind, "/elsewhere"), Envelope("1", "/elsewhere", kind, order))
    return Outgoing("app.shop.v1.events", "Placed", envelopes.lane_of(order), "1", order, headers, Placed(order=order).to_binary())
