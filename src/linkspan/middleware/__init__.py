"""Middleware that comes with Linkspan; each is one object for every path and side."""

from linkspan.middleware.authorize import Authorize, Rule, anyone, require
from linkspan.middleware.bearer import BearerToken
from linkspan.middleware.deadline import Deadline
from linkspan.middleware.jwt import JwtAuthentication
from linkspan.middleware.mtls import MtlsIdentity
from linkspan.middleware.tracing import Tracing

__all__ = [
    "Authorize",
    "BearerToken",
    "Deadline",
    "JwtAuthentication",
    "MtlsIdentity",
    "Rule",
    "Tracing",
    "anyone",
    "require",
]
