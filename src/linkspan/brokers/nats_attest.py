"""What an acknowledgement of a NATS server is worth: read from the server, never assumed."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Durability

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nats.aio.client import Client

    from linkspan.brokers.nats_admin import Admin

__all__ = ["attest", "check_server"]

MIN_SERVER = (2, 15)
"""Older servers had holes in `sync_interval: always` (nats-server PR 8475)."""


def check_server(client: Client, settings: Mapping[str, Any]) -> None:
    """Refuse a server that is too old, or has no JetStream headers."""
    version = client.connected_server_version
    if (version.major, version.minor) < MIN_SERVER and not settings.get("any_server_version"):
        found = f"{version.major}.{version.minor}.{version.patch}"
        raise SetupError(f"NATS server {found} may lose what it acknowledged: use 2.15 or newer, or the option 'any_server_version'.")


async def attest(client: Client, admin: Admin, topics: Iterable[str], settings: Mapping[str, Any]) -> Durability:
    """Return the level; raise `SetupError` for streams that cannot keep any promise."""
    check_server(client, settings)
    version = client.connected_server_version
    facts = {"version": f"{version.major}.{version.minor}.{version.patch}"}
    reasons: list[str] = []
    replicas: set[int] = set()
    for topic in topics:
        try:
            replicas.add(_check_stream(topic, await admin.stream(topic)))
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            reasons.append(f"topic '{topic}' does not exist yet")
    facts["replicas"] = ",".join(str(count) for count in sorted(replicas)) or "none"
    sync, proof = await _sync(settings)
    facts["sync"] = proof
    if not sync:
        reasons.append(f"{proof}: an acknowledged message survives a killed server, not a power cut")
    return Durability("nats", "power" if sync else "process", tuple(reasons), facts)


def _check_stream(topic: str, config: Mapping[str, Any]) -> int:
    """Return the replicas of a stream that keeps what it acknowledges."""
    unsafe = [("storage", "memory"), ("persist_mode", "async"), ("no_ack", True), ("discard", "old")]
    for setting, value in unsafe:
        bounded = any(int(config.get(limit, -1)) > 0 for limit in ("max_msgs", "max_bytes", "max_msgs_per_subject"))
        if config.get(setting) == value and (setting != "discard" or bounded):
            raise SetupError(f"The stream of topic '{topic}' has {setting} '{value}' and may lose messages: change it, or make a new one.")
    return int(config.get("num_replicas", 1))


async def _sync(settings: Mapping[str, Any]) -> tuple[bool, str]:
    """Tell whether the server syncs before it acknowledges, and how we know."""
    if "sync_interval" in settings:
        return settings["sync_interval"] == "always", f"sync_interval '{settings['sync_interval']}' by its configuration"
    monitoring = str(settings.get("monitoring", ""))
    if not monitoring:
        return False, "sync_interval is not known (give the option 'monitoring')"
    try:
        varz = await asyncio.to_thread(_read, f"{monitoring.rstrip('/')}/varz")
    except (OSError, ValueError) as error:
        return False, f"monitoring did not answer ({type(error).__name__})"
    always = varz.get("jetstream", {}).get("config", {}).get("sync_always") is True
    return always, "sync_always by /varz" if always else "sync_always is not set by /varz"


def _read(url: str) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 - the scheme was checked
        found: dict[str, Any] = json.load(answer)
    return found
