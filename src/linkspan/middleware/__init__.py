"""Middleware that comes with Linkspan; each is one object for every path and side."""

from linkspan.middleware.deadline import Deadline
from linkspan.middleware.tracing import Tracing

__all__ = ["Deadline", "Tracing"]
