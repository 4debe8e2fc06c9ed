"""Why JetStream did not store a message, as an `Error` that says what to do."""

from __future__ import annotations

import msgspec

from linkspan.errors import Code, Error

__all__ = ["refusal"]

_STREAM_FULL = 10077
_TOO_LARGE = 10054


class _Reason(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    error: _Reason | None = None


_decode = msgspec.json.Decoder(_PubAck).decode


def refusal(topic: str, raw: bytes, data: bytes, *, known: bool) -> Error:
    """Read the answer to a publish that was not stored; `known` tells that the topic was there before."""
    if raw.startswith(b"NATS/1.0 503"):
        if known:  # its stream has no leader, or is still being recovered
            return Error(Code.UNAVAILABLE, f"Topic '{topic}' has no server at present: send the message again with the same id.")
        return Error(Code.NOT_FOUND, f"Topic '{topic}' has no stream: declare it first.")
    try:
        reason = _decode(data).error or _Reason()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        reason = _Reason()
    text = f"NATS error {reason.err_code}, {reason.description or 'not understood'}"
    if reason.err_code == _TOO_LARGE:
        return Error(Code.INVALID_ARGUMENT, f"The message is too large for topic '{topic}' ({text}): send a smaller one.")
    hint = "make room in its stream" if reason.err_code == _STREAM_FULL else "send it again with the same id"
    return Error(Code.UNAVAILABLE, f"Topic '{topic}' did not store the message ({text}): {hint}.")
