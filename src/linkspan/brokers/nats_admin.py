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

__all__ = [
    "Admin",
    "RefusedError",
    "clustered",
    "consumer_of",
    "lane_consumer",
    "leader_of_consumer",
    "leader_of_stream",
    "stream_of",
]

ACK_WAIT = 30.0
"""Seconds until JetStream hands an unsettled message over again; `beat` starts them anew."""

MAX_ACK_PENDING = 65_536
"""Most unsettled messages of a group over all its instances; each instance's bound is its prefetch."""

IN_CLUSTER = 3
"""Replicas of a stream in a cluster, unless told otherwise: it lives on while any two of their servers do."""

AT_ONCE = 8
"""Requests under way at most: a server whose disk is slow does one after the other, and each has a limit of time."""

_STREAM_MISSING, _CONSUMER_MISSING = 10059, 10014
_NO_CLUSTER, _TOO_FEW_SERVERS, _BUSY = 10074, {10005, 10023}, 503
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_STALE_TRIES, _STALE_WAIT = 6, 0.02
_OFFLINE_TRIES, _OFFLINE_WAIT = 20, 0.25
"""How often a stream is asked for, and the seconds between, while servers of the cluster are known and away: they may be starting, too."""
_UNANSWERED_TRIES = 3
"""How often what may be done twice is asked for where nobody answers: whoever leads a stream may have died with the request."""


def stream_of(topic: str) -> str:
    """Return the stream of a topic: its name with underscores for dots, which stream names may not hold."""
    return _plain(topic, "topic")


def consumer_of(group: str) -> str:
    """Return the durable consumer of a group."""
    return _plain(group, "group")


def lane_consumer(group: str, lane: int) -> str:
    """Return the durable consumer of one lane of a group; no group can have that name."""
    return f"{consumer_of(group)}={lane}"


def leader_of_stream(topic: str) -> str:
    """Return the subject on which JetStream says that another server of the cluster leads a topic's stream."""
    return f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream_of(topic)}"


def leader_of_consumer(topic: str, consumer: str = "*") -> str:
    """Return the subject on which JetStream says that another server of the cluster leads a consumer, or any of a topic's."""
    return f"$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.{stream_of(topic)}.{consumer}"


def _plain(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise SetupError(f"The {what} '{name}' cannot be named in NATS: use letters, digits, '_', '-' and single dots.")
    return name.replace(".", "_")


class RefusedError(Error):
    """The server's answer to a request that it did not do: NOT_FOUND, UNAVAILABLE where nobody leads, else FAILED_PRECONDITION."""

    def __init__(self, path: str, problem: Mapping[str, Any]) -> None:
        self.reason = int(problem.get("err_code") or 0)
        self.status = int(problem.get("code") or 0)
        self.description = str(problem.get("description", ""))
        missing = self.reason in {_STREAM_MISSING, _CONSUMER_MISSING}
        code = Code.NOT_FOUND if missing else Code.UNAVAILABLE if self.status == _BUSY else Code.FAILED_PRECONDITION
        super().__init__(code, f"The NATS server refused '{path}' ({self.description}): declare it first, or check its settings.")


def clustered(info: Mapping[str, Any]) -> bool:
    """Tell from a stream's state whether its server is one of a cluster."""
    cluster: Mapping[str, Any] = info.get("cluster") or {}
    return bool(cluster.get("name"))


class Admin:
    """JetStream's API by requests on one connection."""

    def __init__(self, client: Client, clock: Clock, *, replicas: int = 0, ack_wait: float | None = None, timeout: float = 5.0) -> None:
        self._client = client
        self._clock = clock
        self._replicas = replicas
        self._ack_wait = ack_wait
        self._timeout = timeout
        self._calls: dict[asyncio.Task[Msg], str] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._closed = False
        self.waits: dict[tuple[str, str], float] = {}
        self._denied: set[str] = set()
        self.clustered = False  # as far as answers have told

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
            "num_replicas": self._replicas or IN_CLUSTER,
            "allow_atomic": True,
            "duplicate_window": 120_000_000_000,
            **(more or {}),
        }
        try:
            found = await self.stream_state(topic)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if not create:
                return [_missing(f"stream '{name}'")]
            await self._create_stream(topic, wanted)
            return []
        if not (self._replicas or clustered(found)):
            wanted["num_replicas"] = 1
        return _compare(f"stream '{name}'", wanted, found["config"])

    async def _create_stream(self, topic: str, wanted: dict[str, Any]) -> None:
        """Create it with as many replicas as were asked for, else with three in a cluster and one without."""
        path, what = f"STREAM.CREATE.{wanted['name']}", f"The stream of topic '{topic}'"
        for left in reversed(range(_OFFLINE_TRIES)):
            try:
                await self._create(path, wanted, what)
            except RefusedError as error:
                few = error.reason in _TOO_FEW_SERVERS and error.status != _BUSY
                if few and left and "offline" in error.description:
                    await self._clock.sleep(_OFFLINE_WAIT)
                    continue
                if few:
                    count = wanted["num_replicas"]
                    text = f"{what} cannot have {count} replicas ({error.description}): run {count} servers with JetStream"
                    raise SetupError(f"{text} in the cluster, or end the broker's address with '?replicas=1'.") from error
                if error.reason != _NO_CLUSTER or self._replicas:
                    raise
                await self._create(path, wanted | {"num_replicas": 1}, what)
            return

    async def declare_lanes(self, topic: str, group: str, lanes: Iterable[int], *, create: bool = True) -> list[Drift]:
        """Create a consumer per lane; where the group had one for all, each lane goes on where that stands."""
        try:
            found = await self._patiently(f"CONSUMER.INFO.{stream_of(topic)}.{consumer_of(group)}")
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
            found = await self._patiently(f"CONSUMER.INFO.{stream}.{name}")
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
            await self._patiently(path, body)
        except Error as error:
            if error.code is not Code.PERMISSION_DENIED:
                raise
            text = "is missing, and this login may not create it: run `linkspan broker apply MODULE:APP` with one that may"
            raise SetupError(f"{what} {text}.") from error

    async def stream(self, topic: str) -> dict[str, Any]:
        """Return a topic's stream settings. Raises `Error(NOT_FOUND)`."""
        found: dict[str, Any] = (await self.stream_state(topic))["config"]
        return found

    async def stream_state(self, topic: str) -> dict[str, Any]:
        """Return a topic's stream with its state and cluster. Raises `Error(NOT_FOUND)`."""
        return await self._patiently(f"STREAM.INFO.{stream_of(topic)}")

    async def reset(self, stream: str, consumer: str) -> bool:
        """Move a consumer back to its ack floor, once the pulls of a connection that has just died are gone.

        Returns whether it is one of a cluster, where its leader may change.

        They survive a reset and would take messages to nobody. Other live instances of the group have pulls too, so the wait is short.
        """
        info: dict[str, Any] = {}
        for _ in range(_STALE_TRIES):
            info = await self.request(f"CONSUMER.INFO.{stream}.{consumer}")  # a reset of a missing consumer gets no answer at all
            if not info.get("num_waiting"):
                break
            await self._clock.sleep(_STALE_WAIT)
        self.waits[stream, consumer] = info["config"].get("ack_wait", 0) / 1e9 or ACK_WAIT
        await self.request(f"CONSUMER.RESET.{stream}.{consumer}")
        return clustered(info)

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

    async def _patiently(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask as `request` does, and again where nobody answers."""
        for _ in range(_UNANSWERED_TRIES - 1):
            try:
                return await self.request(path, body)
            except Error as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
        return await self.request(path, body)

    async def request(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API. Raises `Error`: NOT_FOUND, UNAVAILABLE, FAILED_PRECONDITION for other refusals."""
        payload = json.dumps(body).encode() if body is not None else b""
        try:
            async with self._turns:
                answer = await self._call(f"$JS.API.{path}", payload)
        except NoRespondersError as error:
            raise Error(Code.UNAVAILABLE, "The NATS server does not answer for JetStream: enable it, or wait for it.") from error
        except (TimeoutError, NatsError, OSError) as error:
            raise Error(Code.UNAVAILABLE, f"The NATS server did not answer ({type(error).__name__}): try again.") from error
        result: dict[str, Any] = json.loads(answer.data)
        self.clustered = self.clustered or clustered(result)
        problem = result.get("error")
        if problem is None:
            return result
        raise RefusedError(path, problem)


def _missing(what: str) -> Drift:
    return Drift(what, "exists", "yes", "no")


def _compare(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[Drift]:
    """Return the settings that differ."""
    return [
        Drift(what, setting, str(value), str(found.get(setting, "unset")))
        for setting, value in wanted.items()
        if (found.get(setting) or None) != (value or None)
    ]
