"""The address of NATS: one server or several of a cluster, and our own settings behind a question mark.

`nats://user:password@a.example:4222,b.example:4222?replicas=3`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NatsAddress"]

Read: TypeAlias = Callable[[str], object]

MOST_REPLICAS = 5
"""As many as JetStream keeps."""


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where the servers of one NATS system are, who we are there, and settings of ours."""

    servers: list[str]
    user: str = ""
    password: str = field(default="", repr=False)
    options: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def parse(cls, url: str) -> NatsAddress:
        """Read it. Raises `SetupError`, whose text holds no password."""
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        servers = [f"{parts.scheme}://{host.strip()}" for host in hosts.split(",")]
        for server in servers:
            _check(server)
        return cls(servers, unquote(user), unquote(password), _options(parts))


def _check(server: str) -> None:
    try:
        parts = urlsplit(server)
        wrong = "" if parts.hostname else "a host is missing"
        _ = parts.port
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise SetupError(f"The broker's address (LINKSPAN_BROKER) cannot be read: {wrong}. Write nats://host:port,host:port.")


def _replicas(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MOST_REPLICAS:
        raise ValueError
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _http(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError
    return text


READERS: Mapping[str, tuple[Read, str]] = {
    "replicas": (_replicas, f"1 to {MOST_REPLICAS}"),
    "publish_timeout": (_seconds, "seconds"),
    "monitoring": (_http, "http://host:port"),
}


def _options(parts: SplitResult) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in READERS:
            raise SetupError(f"The broker's address has a setting '{name}': there are {', '.join(READERS)}.")
        read, wanted = READERS[name]
        try:
            found[name] = read(text)
        except ValueError as error:
            raise SetupError(f"The broker's address has {name} '{text}': write {wanted}.") from error
    return found
