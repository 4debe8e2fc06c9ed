"""Brokers. Each is one module that passes `linkspan.testing.BrokerContract`; the scheme of the URL chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from linkspan.brokers.nats_address import NatsAddress
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from linkspan.ports import Broker, Runtime

__all__ = ["broker_for", "check_address", "shown_address"]


def check_address(url: str) -> None:
    """Refuse an address that cannot be read, before anything is opened. Raises `SetupError` without a password in its text."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise SetupError(f"The broker's address (LINKSPAN_BROKER) cannot be read: {error}. Write nats://host:port.") from error
    if scheme in {"nats", "tls"}:
        NatsAddress.parse(url)


def shown_address(given: str | Broker) -> str:
    """Return a broker's address for people to read, without its password; for a broker itself, what it is."""
    if not isinstance(given, str):
        return type(given).__name__
    scheme, mark, rest = given.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def broker_for(url: str, runtime: Runtime, *, user: str = "", password: str = "", options: Mapping[str, Any] | None = None) -> Broker:
    """Return the broker of a URL, not opened yet. User and password may stand in the URL; `options` are the adapter's own."""
    parts = urlsplit(url)
    if parts.scheme in {"nats", "tls"}:
        from linkspan.brokers.nats import NatsBroker  # noqa: PLC0415 - the client library loads where it is used

        there = NatsAddress.parse(url)
        user, password = user or there.user, password or there.password
        return NatsBroker(there.servers, runtime=runtime, user=user, password=password, options={**there.options, **(options or {})})
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
