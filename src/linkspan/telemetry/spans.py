"""OpenTelemetry spans around handlers and calls. Names and attributes: semantic conventions 1.44, RPC and messaging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context as Ambient
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from linkspan.errors import Error
from linkspan.path import Path, Side

if TYPE_CHECKING:
    from linkspan.context import Context
    from linkspan.handler import Handler

__all__ = ["traced"]

_KINDS = {
    (Path.DIRECT, Side.SERVER): SpanKind.SERVER,
    (Path.DIRECT, Side.CLIENT): SpanKind.CLIENT,
    (Path.DURABLE, Side.SERVER): SpanKind.CONSUMER,
    (Path.DURABLE, Side.CLIENT): SpanKind.PRODUCER,
}


async def traced(ctx: Context, parent: str, request: Any, call_next: Handler) -> Any:
    """Run the rest of the chain inside a recorded span; the span's own ids become the ones that travel on.

    `parent` is the caller's traceparent, well-formed, or empty. Neither payloads nor the text of exceptions are recorded.
    """
    tracer = trace.get_tracer("linkspan")
    with tracer.start_as_current_span(
        ctx.operation,
        context=_parent_context(ctx, parent),
        kind=_KINDS[ctx.path, ctx.side],
        attributes=_attributes(ctx),
        record_exception=False,
        set_status_on_exception=False,  # it would write the exception's text down
    ) as span:
        found = span.get_span_context()
        if found.is_valid:
            ctx.trace = f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"
        try:
            return await call_next(ctx, request)
        except Exception as error:
            span.set_attribute("error.type", error.code.value if isinstance(error, Error) else type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise


def _parent_context(ctx: Context, parent: str) -> Ambient | None:
    """Return where the span belongs; None is what is current, which counts for a program's own calls only."""
    if not parent:
        return None if ctx.side is Side.CLIENT else Ambient()
    context = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), is_remote=True, trace_flags=TraceFlags(int(parent[53:55], 16)))
    return trace.set_span_in_context(NonRecordingSpan(context))


def _attributes(ctx: Context) -> dict[str, str | int]:
    if ctx.path is Path.DIRECT:
        return {"rpc.system.name": "connectrpc", "rpc.method": ctx.operation.lstrip("/")}
    return {"messaging.operation.type": "process", "messaging.destination.name": ctx.operation, "messaging.message.id": ctx.id}
