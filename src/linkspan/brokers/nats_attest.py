"""What an acknowledgement of a NATS server is worth: read from the server, never assumed."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Any, cast

from nats.errors import Error as NatsError

from linkspan.brokers.nats_admin import clustered, consumer_of, stream_of
from linkspan.brokers.nats_settings import CONSUMER, MIN_SERVER, SERVER, STREAM
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Finding, attested, judged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from linkspan.brokers.nats_admin import Admin
    from linkspan.ports import Durability

__all__ = ["attest", "check_server"]

PATIENCE = 0.5
"""Seconds in which the servers of a cluster answer a question to all of them."""
_VARZ = "$SYS.REQ.SERVER.PING.VARZ"


def check_server(client: Client, settings: Mapping[str, Any]) -> None:
    """Refuse a server that is too old, or has no JetStream headers."""
    version = client.connected_server_version
    if (version.major, version.minor) < MIN_SERVER and not settings.get("any_server_version"):
        found = f"{version.major}.{version.minor}.{version.patch}"
        raise SetupError(f"NATS server {found} may lose what it acknowledged: use 2.15 or newer, or the option 'any_server_version'.")


async def attest(
    client: Client, admin: Admin, topics: Iterable[str], groups: Collection[tuple[str, str]], settings: Mapping[str, Any]
) -> Durability:
    """Ask the server for itself, its streams and its consumers."""
    named = {topic: {group for each, group in groups if group and each == topic} for topic in topics}
    findings: list[Finding] = []
    replicas: set[int] = set()
    for topic, readers in named.items():
        try:
            stream = await admin.stream_state(topic)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            findings.append(Finding("nats.no_stream", "power", f"topic '{topic}' does not exist yet", "start the app once"))
            continue
        config = stream["config"] | {"clustered": clustered(stream)}
        replicas.add(int(config.get("num_replicas", 1)))
        findings += judged(STREAM, config, f"The stream of topic '{topic}'")
        findings += await _consumers(admin, topic, readers, max(replicas))
    sync, proof = await _sync(client, settings, max(replicas, default=1))
    version = client.connected_server_version
    told = f"{version.major}.{version.minor}.{version.patch}"
    server = {"version": told, "version_numbers": (version.major, version.minor), "sync_always": sync, "sync": proof}
    findings += judged(SERVER, server, "The server")
    facts = {"version": told, "replicas": ",".join(str(count) for count in sorted(replicas)) or "none", "sync": proof}
    return attested("nats", findings, facts)


async def _consumers(admin: Admin, topic: str, groups: Iterable[str], replicas: int) -> list[Finding]:
    """Judge the consumers of these groups, and those of their lanes, by one request."""
    names = {consumer_of(group): group for group in groups}
    findings: dict[tuple[str, str], Finding] = {}
    for consumer in await _listed(admin, topic, names) if names else []:
        group = names.get(str(consumer["name"]).partition("=")[0])
        if group is not None:
            config = consumer["config"] | {"stream_replicas": replicas}
            for each in judged(CONSUMER, config, f"The consumer of group '{group}' for topic '{topic}'"):
                findings.setdefault((group, each.name), each)
    return list(findings.values())


async def _listed(admin: Admin, topic: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return a stream's consumers, or, to a login that may not list them, those that it may look at."""
    stream, found = stream_of(topic), list[dict[str, Any]]()
    try:
        while True:
            page = await admin.request(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            found += page.get("consumers") or []
            if len(found) >= int(page.get("total", 0)) or not page.get("consumers"):
                return found
    except Error as error:
        if error.code is not Code.PERMISSION_DENIED:
            raise
    looked = [await _looked_at(admin, stream, name) for name in names]
    return [each for each in looked if each is not None]


async def _looked_at(admin: Admin, stream: str, name: str) -> dict[str, Any] | None:
    try:
        return await admin.request(f"CONSUMER.INFO.{stream}.{name}")
    except Error as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None


async def _sync(client: Client, settings: Mapping[str, Any], servers: int) -> tuple[bool | None, str]:
    """Tell whether all servers sync before they acknowledge (None where that is not known), and how we know."""
    if "sync_interval" in settings:
        return settings["sync_interval"] == "always", f"sync_interval '{settings['sync_interval']}' by its configuration"
    addresses = [each.strip() for each in str(settings.get("monitoring", "")).split(",") if each.strip()]
    try:
        found = [await asyncio.to_thread(_read, f"{each.rstrip('/')}/varz") for each in addresses]
        by = "/varz"
        if not addresses:
            found, by = await _asked(client, servers), "$SYS"
    except (OSError, ValueError) as error:
        return None, f"monitoring did not answer ({type(error).__name__})"
    always = [each.get("jetstream", {}).get("config", {}).get("sync_always") is True for each in found]
    if not all(always):
        return False, f"sync_always is not set by {by}"
    if not found:
        return None, "sync_interval is not known (give the option 'monitoring')"
    if len(found) < servers:
        return None, f"sync_always of {len(found)} servers of {servers} by {by}"
    return True, f"sync_always by {by}"


async def _asked(client: Client, servers: int) -> list[dict[str, Any]]:
    """Ask all servers, where this login may: a system account's export that was imported. Nobody answers where it may not."""
    found: list[dict[str, Any]] = []
    done = asyncio.Event()

    async def hear(message: Msg) -> None:
        if message.headers:  # no responders
            done.set()
            return
        answer = json.loads(message.data)
        found.append(answer.get("data") or {})
        if len(found) >= servers:
            done.set()

    inbox, untyped = client.new_inbox(), cast("Any", client)  # nats-py left futures untyped
    try:
        subscription = await untyped.subscribe(inbox, cb=hear)
        await client.publish(_VARZ, b"", reply=inbox)
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        await subscription.unsubscribe()
    except (NatsError, OSError, TimeoutError, ValueError):
        return found
    return found


def _read(url: str) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 - the scheme was checked
        found: dict[str, Any] = json.load(answer)
    return found
