"""Streams and consumers on a NATS server: declared, compared, reset, and asked what they are worth."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError, NoRespondersError

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from linkspan.ports import Clock

__all__ = ["Admin", "consumer_of", "lane_consumer", "stream_of"]

ACK_WAIT = 30.0
"""Seconds until JetStream hands an unsettled message over again; `beat` starts them anew."""

MAX_ACK_PENDING = 65_536
"""Most unsettled messages of a group over all its instances; each instance's bound is its prefetch."""

_STREAM_MISSING, _CONSUMER_MISSING = 10059, 10014
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_STALE_TRIES, _STALE_WAIT = 6, 0.02


def stream_of(topic: str) -> str:
    """Return the stream of a topic: its name with underscores for dots, which stream names may not hold."""
    return _plain(topic, "topic")


def consumer_of(group: str) -> str:
    """Return the durable consumer of a group."""
    return _plain(group, "group")


def lane_consumer(group: str, lane: int) -> str:
    """Return the durable consumer of one lane of a group; no group can have that name."""
    return f"{consumer_of(group)}={lane}"


def _plain(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise SetupError(f"The {what} '{name}' cannot be named in NATS: use letters, digits, '_', '-' and single dots.")
    return name.replace(".", "_")


class Admin:
    """JetStream's API by requests on one connection."""

    def __init__(self, client: Client, clock: Clock, *, replicas: int = 1, ack_wait: float | None = None, timeout: float = 5.0) -> None:
        self._client = client
        self._clock = clock
        self._replicas = replicas
        self._ack_wait = ack_wait
        self._timeout = timeout
        self._calls: dict[asyncio.Task[Msg], str] = {}
        self._closed = False
        self._denied: set[str] = set()

    def close(self) -> None:
        """Fail the requests on their way with UNAVAILABLE."""
        self._closed = True
        for call in self._calls:
            call.cancel()

    async def declare_foreign(self, subject: str, topic: str, group: str, *, given: bool) -> list[Drift]:
        """Make a consumer of one subject on a stream that is there (`given`), or on one that is made to keep the subject."""
        drifts: list[Drift] = []
        if not given:  # no acknowledgements: they would go to whoever publishes with a reply subject and awaits another answer
            drifts = await self.declare_stream(topic, {"subjects": [subject], "no_ack": True})
        return drifts + await self.declare_consumer(topic, group, subject)

    def on_denied(self, subject: str) -> None:
        """Fail the requests to a subject that this login may not publish to: the server tells so beside the requests."""
        self._denied.add(subject.lower())  # nats-py tells it in lower case
        for call, asked in self._calls.items():
            if asked.lower() == subject.lower():
                call.cancel()

    async def declare_stream(self, topic: str, more: Mapping[str, Any] | None = None, *, create: bool = True) -> list[Drift]:
        """Create a topic's stream, or compare the one that is there; with `create=False` a missing one is a drift."""
        name = stream_of(topic)
        wanted: dict[str, Any] = {
            "name": name,
            "subjects": [f"{topic}.>"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": self._replicas,
            "allow_atomic": True,
            "duplicate_window": 120_000_000_000,
            **(more or {}),
        }
        try:
            found = await self.stream(topic)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if not create:
                return [_missing(f"stream '{name}'")]
            await self._create(f"STREAM.CREATE.{name}", wanted, f"The stream of topic '{topic}'")
            return []
        return _compare(f"stream '{name}'", wanted, found)

    async def declare_lanes(self, topic: str, group: str, lanes: Iterable[int], *, create: bool = True) -> list[Drift]:
        """Create a consumer per lane; where the group had one for all, each lane goes on where that stands."""
        try:
            found = await self.request(f"CONSUMER.INFO.{stream_of(topic)}.{consumer_of(group)}")
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            first = 0
        else:
            first = int(found["ack_floor"]["stream_seq"]) + 1
        made = [
            self.declare_consumer(topic, group, f"{topic}.{lane}.>", name=lane_consumer(group, lane), first=first, create=create)
            for lane in lanes
        ]
        return [drift for drifts in await asyncio.gather(*made) for drift in drifts]

    async def declare_consumer(
        self, topic: str, group: str, subject: str = "", *, name: str = "", first: int = 0, create: bool = True
    ) -> list[Drift]:
        """Create a group's consumer, of one subject or all, from its `first` message or the stream's, or compare what is there.

        With `create=False` a missing one is a drift.
        """
        stream, name = stream_of(topic), name or consumer_of(group)
        wanted: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int((self._ack_wait or ACK_WAIT) * 1e9),
            "max_deliver": -1,
            "max_ack_pending": MAX_ACK_PENDING,
            "replay_policy": "instant",
        }
        unset: dict[str, Any] = {"filter_subject": "", "filter_subjects": [], "deliver_subject": "", "backoff": []}
        if subject:
            wanted["filter_subject"] = unset["filter_subject"] = subject
        try:
            found = await self.request(f"CONSUMER.INFO.{stream}.{name}")
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if not create:
                return [_missing(f"consumer '{name}' of stream '{stream}'")]
            await self.stream(topic)
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": first} if first else {}
            body = {"stream_name": stream, "action": "create", "config": wanted | start}
            await self._create(f"CONSUMER.CREATE.{stream}.{name}", body, f"The consumer of group '{group}' for topic '{topic}'")
            return []
        config = found["config"]
        if self._ack_wait and config.get("ack_wait") != wanted["ack_wait"]:
            config["ack_wait"] = wanted["ack_wait"]
            if create:
                await self.request(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "action": "update", "config": config})
        if config.get("opt_start_seq"):
            del wanted["deliver_policy"]  # it went on where the group stood when it was read as one
        return _compare(f"consumer '{name}' of stream '{stream}'", wanted | unset, config)

    async def _create(self, path: str, body: Mapping[str, Any], what: str) -> None:
        """Create what is missing. Raises `SetupError` where this login may not: then somebody who may has to do it first."""
        try:
            await self.request(path, body)
        except Error as error:
            if error.code is not Code.PERMISSION_DENIED:
                raise
            text = "is missing, and this login may not create it: run `linkspan broker apply MODULE:APP` with one that may"
            raise SetupError(f"{what} {text}.") from error

    async def stream(self, topic: str) -> dict[str, Any]:
        """Return a topic's stream settings. Raises `Error(NOT_FOUND)`."""
        found: dict[str, Any] = (await self.request(f"STREAM.INFO.{stream_of(topic)}"))["config"]
        return found

    async def reset(self, stream: str, consumer: str) -> None:
        """Move a consumer back to its ack floor, once the pulls of a connection that has just died are gone.

        They survive a reset and would take messages to nobody. Other live instances of the group have pulls too, so the wait is short.
        """
        for _ in range(_STALE_TRIES):
            info = await self.request(f"CONSUMER.INFO.{stream}.{consumer}")  # a reset of a missing consumer gets no answer at all
            if not info.get("num_waiting"):
                break
            await self._clock.sleep(_STALE_WAIT)
        await self.request(f"CONSUMER.RESET.{stream}.{consumer}")

    async def _call(self, subject: str, payload: bytes) -> Msg:
        call = asyncio.get_running_loop().create_task(self._client.request(subject, payload, timeout=self._timeout))
        self._calls[call] = subject
        try:
            return await call
        except asyncio.CancelledError:
            if subject.lower() in self._denied and call.cancelled():
                text = f"This login may not ask the NATS server for '{subject}': allow it to publish there."
                raise Error(Code.PERMISSION_DENIED, text) from None
            if not self._closed:
                raise
            raise Error(Code.UNAVAILABLE, "The broker was closed: open it again.") from None
        finally:
            call.cancel()
            self._calls.pop(call, None)

    async def request(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API. Raises `Error`: NOT_FOUND, UNAVAILABLE, FAILED_PRECONDITION for other refusals."""
        payload = json.dumps(body).encode() if body is not None else b""
        try:
            answer = await self._call(f"$JS.API.{path}", payload)
        except NoRespondersError as error:
            raise Error(Code.UNAVAILABLE, "The NATS server does not answer for JetStream: enable it, or wait for it.") from error
        except (TimeoutError, NatsError, OSError) as error:
            raise Error(Code.UNAVAILABLE, f"The NATS server did not answer ({type(error).__name__}): try again.") from error
        result: dict[str, Any] = json.loads(answer.data)
        problem = result.get("error")
        if problem is None:
            return result
        missing = problem.get("err_code") in {_STREAM_MISSING, _CONSUMER_MISSING}
        code = Code.NOT_FOUND if missing else Code.UNAVAILABLE if problem.get("code") == 503 else Code.FAILED_PRECONDITION  # noqa: PLR2004 - as in HTTP
        raise Error(code, f"The NATS server refused '{path}' ({problem.get('description')}): declare it first, or check its settings.")


def _missing(what: str) -> Drift:
    return Drift(what, "exists", "yes", "no")


def _compare(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[Drift]:
    """Return the settings that differ."""
    return [
        Drift(what, setting, str(value), str(found.get(setting, "unset")))
        for setting, value in wanted.items()
        if (found.get(setting) or None) != (value or None)
    ]
