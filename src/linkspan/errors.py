"""The one error type of all paths, and the one for programmer mistakes.

Exception
├── Error        what a caller, a handler or a broker may meet at run time: a code, a sentence, details
└── SetupError   a wrong declaration or setting, raised at start-up, never on the first message
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf import Message as ProtoMessage

__all__ = ["Code", "Error", "SetupError"]


class Code(enum.Enum):
    """The 16 codes that gRPC and Connect share (https://connectrpc.com/docs/protocol#error-codes)."""

    CANCELED = "canceled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out_of_range"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATA_LOSS = "data_loss"
    UNAUTHENTICATED = "unauthenticated"


_TRANSIENT = frozenset({Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.CANCELED})


class Error(Exception):
    """A coded failure, the same on every path.

    `details` are messages that travel with the error (typed reasons, retry hints). A message
    whose handler raises a transient code is tried again; any other code sends it to the dead letters.
    """

    def __init__(self, code: Code, message: str, details: Sequence[ProtoMessage] = ()) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = tuple(details)

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"

    @property
    def transient(self) -> bool:
        """Tell whether trying the same message again may help."""
        return self.code in _TRANSIENT

    @classmethod
    def refused(cls, message: str) -> Error:
        """Say no for a business reason: the answer is final, trying again does not help."""
        return cls(Code.FAILED_PRECONDITION, message)


class SetupError(ValueError):
    """A declaration or setting that cannot work, with what to do about it."""
