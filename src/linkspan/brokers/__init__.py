"""Brokers. Each is one module that passes `linkspan.testing.BrokerContract`; the scheme of the URL chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from linkspan.ports import Broker, Runtime

__all__ = ["broker_for"]


def broker_for(url: str, runtime: Runtime, *, user: str = "", password: str = "", options: Mapping[str, Any] | None = None) -> Broker:
    """Return the broker of a URL, not opened yet. User and password may stand in the URL; `options` are the adapter's own."""
    parts = urlsplit(url)
    if parts.scheme in {"nats", "tls"}:
        from linkspan.brokers.nats import NatsBroker  # noqa: PLC0415 - the client library loads where it is used

        user, password = user or unquote(parts.username or ""), password or unquote(parts.password or "")
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, parts.fragment))
        return NatsBroker(plain, runtime=runtime, user=user, password=password, options=options)
    if parts.scheme in {"kafka", "kafkas"}:
        try:
            from linkspan.brokers.kafka import KafkaBroker  # noqa: PLC0415 - the client library loads where it is used
        except ModuleNotFoundError as error:
            raise SetupError("Kafka needs the package confluent-kafka: install linkspan[kafka].") from error
        return KafkaBroker(url, runtime=runtime, user=user, password=password, options=options)
    if parts.scheme == "memory":
        from linkspan.brokers.memory import MemoryBroker  # noqa: PLC0415 - only where it is used

        return MemoryBroker(runtime=runtime)
    raise SetupError(f"The broker scheme '{parts.scheme}' is unknown: use nats://, tls://, kafka://, kafkas:// or memory://.")
