"""`google.rpc.RetryInfo`: the detail of an error that says when to try again, and `Retry-After`, its header (RFC 9110 §10.2.3)."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from protobuf import Message
from protobuf.wkt.google.protobuf import duration_pb
from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from linkspan.options import link_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protobuf import DescFile
    from protobuf.wkt import Duration

__all__ = ["RetryDelay", "read_retry_after", "retry_after"]

_MOST_SECONDS: Final = 10**9


class RetryDelay(Message[Any]):
    """`google.rpc.RetryInfo`, when a caller may try again: `retry_delay` after the answer (google/rpc/error_details.proto)."""

    __slots__ = ("retry_delay",)

    if TYPE_CHECKING:

        def __init__(self, *, retry_delay: Duration | None = None) -> None: ...

        retry_delay: Duration | None


def _file() -> DescFile:
    delay = FieldDescriptorProto(
        name="retry_delay",
        number=1,
        json_name="retryDelay",
        label=FieldDescriptorProto.Label.OPTIONAL,
        type=FieldDescriptorProto.Type.MESSAGE,
        type_name=".google.protobuf.Duration",
    )
    proto = FileDescriptorProto(
        name="google/rpc/error_details.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/duration.proto"],
        message_type=[DescriptorProto(name="RetryInfo", field=[delay])],
    )
    return link_file(proto, [duration_pb.desc()], {"RetryInfo": RetryDelay})


RETRY_FILE: Final = _file()


def retry_after(details: Iterable[Message[Any]]) -> str:
    """Return the value of `Retry-After` that details ask for (whole seconds, rounded up), empty where none does."""
    for detail in details:
        if detail.desc().type_name == RetryDelay.desc().type_name:
            delay: Any = getattr(detail, "retry_delay", None)
            if delay is not None:
                return str(max(0, math.ceil(delay.seconds + delay.nanos / 1e9)))
    return ""


def read_retry_after(value: str, now: float) -> RetryDelay | None:
    """Return the detail for a `Retry-After` (seconds, or a date, compared with `now` in seconds since 1970), None where it says nothing."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    span = min(max(0.0, seconds), _MOST_SECONDS)
    return RetryDelay(retry_delay=duration_pb.Duration.from_nanos(round(span * 1e9)))
