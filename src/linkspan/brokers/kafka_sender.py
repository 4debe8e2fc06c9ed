"""Kafka's producer on an event loop: one thread polls, and hands over what was stored in one call for all that came together.

Order when something goes wrong: librdkafka keeps the order of a partition as long as it goes on with a message. Where it would give
one up it could let a later one pass. So it never gives up (`message.timeout.ms` is 0); when the oldest message has waited too long,
*all* on their way fail together, and a new producer begins. What the old one still had on the wire can only be a repetition.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from linkspan.brokers.kafka_errors import LOGIN, meaning, reason_of
from linkspan.brokers.kafka_firsts import Firsts, Record
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.brokers.kafka_firsts import Report
    from linkspan.ports import Runtime, Timer

__all__ = ["Record", "Sender"]

logger = logging.getLogger("linkspan.kafka")

POLL = 0.2
"""Seconds that the thread waits at most for something to report."""
PROBE = 1.0
"""Seconds that a look for the brokers takes at most, while none answers."""
_SWEEP = 0.5
_DOWN = frozenset({KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001 - librdkafka's own codes begin so
FRESH = 3600.0
"""Seconds after which the first record of a partition goes alone again."""
REST = 1.0
"""Seconds between two producers at least."""
_NOT_OPEN = "The Kafka broker is not open: open it first."
_BEGINNING = "The Kafka producer begins anew: send it again in a second, with the same id."
_NOBODY: tuple[asyncio.Future[None] | None, str, bool] = (None, "", False)


class _Whole:
    """Counts the confirmations of a batch, so that it is reported once."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.error: KafkaError | None = None

    def last(self, error: KafkaError | None) -> bool:
        """Take one confirmation; tell whether it is the last."""
        self.left -= 1
        self.error = self.error or error
        return self.left == 0


class _Engine:
    """One librdkafka producer and its thread."""

    def __init__(self, config: dict[str, Any], sender: Sender) -> None:
        self._sender = sender
        self._reports: list[tuple[int, KafkaError | None]] = []
        self.ending = False
        self.producer: Any = Producer({**config, "error_cb": self._on_error})
        self.firsts = Firsts(self._produce)
        self.thread = threading.Thread(target=self._run, name="linkspan kafka send", daemon=True)
        self.thread.start()

    def send(self, token: int, record: Record) -> None:
        """Queue one record. Raises KafkaException or BufferError."""
        self.firsts.send(record, partial(self._on_stored, token))

    def send_all(self, token: int, records: Sequence[Record]) -> None:
        """Queue records that are reported as one."""
        report = partial(self._on_part, token, _Whole(len(records)))
        for record in records:
            self.firsts.send(record, report)

    def _produce(self, record: Record, report: Report) -> None:
        topic, partition, key, data, headers = record
        self.producer.produce(topic, data, key or None, partition, on_delivery=report, headers=headers)

    def end(self) -> None:
        """Let the thread go; it forgets what is queued. What it has sent by then can only be a repetition of what is sent anew."""
        self.firsts.end()
        self.ending = True

    def _on_stored(self, token: int, error: KafkaError | None, _message: object) -> None:
        self._reports.append((token, error))

    def _on_part(self, token: int, whole: _Whole, error: KafkaError | None, _message: object) -> None:
        if whole.last(error):
            self._reports.append((token, whole.error))

    def _on_error(self, error: KafkaError) -> None:
        self._sender.call(self._sender.on_error, self, error)

    def _run(self) -> None:
        producer = self.producer
        while not self.ending:
            self._serve(producer.poll, POLL)
            if self._reports:
                reports, self._reports = self._reports, []
                self._sender.call(self._sender.on_stored, reports)
            elif not self._sender.up:
                self._probe(producer)
        self._serve(producer.purge)
        self._serve(producer.poll, 0)
        self.producer = None  # destroyed here, where nobody waits for it

    def _serve(self, call: Callable[..., object], *arguments: object) -> None:
        """Call librdkafka, which raises on a producer that had a fatal error; that one is being replaced."""
        try:
            call(*arguments)
        except KafkaException as error:
            logger.info("kafka producer failed", extra={"reason": reason_of(error)})
            self._sender.rest()

    def _probe(self, producer: Any) -> None:
        try:
            producer.list_topics(timeout=PROBE)
        except KafkaException:
            return
        self._sender.call(self._sender.on_up)


class Sender:
    """Sends records; each future ends when its record is stored."""

    def __init__(self, config: dict[str, Any], runtime: Runtime, timeout: float) -> None:
        self._config = config
        self._runtime = runtime
        self._timeout = timeout
        self._engine: _Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: dict[int, tuple[asyncio.Future[None], str, bool]] = {}  # by tokens that count up: the oldest in front
        self._token = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._sweeper: Timer | None = None
        self._last_error = ""
        self._begun = self._fresh = 0.0
        self._beginning: Timer | None = None
        self.up = False
        self.refused = False
        """The brokers refused our login."""

    def start(self) -> None:
        """Start the thread; nothing is known of the brokers yet."""
        self._loop = asyncio.get_running_loop()
        self.refused, self.up = False, True
        try:
            self._begin()
        except KafkaException as error:
            raise SetupError(f"The Kafka options are not understood ({error}): give what librdkafka takes.") from error

    def call(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call on the loop, from a thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:  # the loop was closed in between: nobody is left to be told
                logger.info("kafka report came after the loop had ended")

    def rest(self) -> None:
        """Let a thread wait a moment, so that it does not spin on what fails at once."""
        threading.Event().wait(POLL)

    def send(self, record: Record, future: asyncio.Future[None]) -> None:
        """Send one record; the future ends with it. Raises `Error`."""
        self._send((future, record[0], False), lambda engine, token: engine.send(token, record))

    def send_all(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Send records of one topic, in order; the future ends when all are stored, or one was not. Raises `Error`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send((future, records[0][0], True), lambda engine, token: engine.send_all(token, records))
        return future

    def _send(self, entry: tuple[asyncio.Future[None], str, bool], queue: Callable[[_Engine, int], None]) -> None:
        engine = self._engine
        if engine is None:
            raise Error(Code.UNAVAILABLE, _NOT_OPEN if self._beginning is None else _BEGINNING)
        self._token = token = self._token + 1
        self._pending[token] = entry
        if self._sweeper is None:
            self._sweep()
        try:
            queue(engine, token)
        except BufferError as error:
            del self._pending[token]
            raise Error(Code.UNAVAILABLE, "Too much waits for the Kafka brokers: send it again later, with the same id.") from error
        except KafkaException as error:
            del self._pending[token]
            raise meaning(error, f"Topic '{entry[1]}'") from error

    def on_stored(self, reports: list[tuple[int, KafkaError | None]]) -> None:
        """Take what the brokers said of some records."""
        reached = self._runtime.reached
        for token, error in reports:
            future, topic, batch = self._pending.pop(token, _NOBODY)
            if future is None or future.done():
                continue
            if error is None:
                self.up = True
                if batch:
                    reached("broker.batch.after")
                else:
                    reached("broker.publish.after")
                future.set_result(None)
            else:
                found = meaning(error, f"Topic '{topic}'")
                future.set_exception(found if isinstance(found, Error) else Error(Code.UNAVAILABLE, str(found)))

    def on_up(self) -> None:
        """Note that the brokers answer again."""
        self.up = True

    def on_error(self, engine: _Engine, error: KafkaError) -> None:
        """Take what librdkafka says of its connections."""
        code, reason = error.code(), reason_of(error)
        if reason != self._last_error:
            logger.info("kafka connection reported an error", extra={"reason": reason})
        self._last_error = reason
        self.refused = self.refused or code in LOGIN
        if code in _DOWN:
            self.up = False
        if error.fatal() and engine is self._engine:
            logger.warning("kafka producer begins anew", extra={"reason": reason})
            self._again("The Kafka producer had to begin anew: send the message again with the same id.")

    def _again(self, text: str) -> None:
        """Fail all that is on its way, so that nothing passes it, and go on with a new producer."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        engine.end()
        self.fail(text)
        now = self._runtime.clock.monotonic()
        if now - self._begun > REST:
            self._begin()
        else:  # whatever ended it, such as a login that may not write, may end the next one at once
            self._beginning = self._runtime.clock.call_later(REST, self._begin)

    def _begin(self) -> None:
        self._beginning = None
        self._begun = self._fresh = self._runtime.clock.monotonic()
        self._engine = _Engine(self._config, self)

    def fail(self, text: str) -> None:
        """Fail what is on its way."""
        pending, self._pending = self._pending, {}
        self._marks.clear()
        for future, _, _ in pending.values():
            if not future.done():
                future.set_exception(Error(Code.UNAVAILABLE, text))

    async def aclose(self, limit: float) -> None:
        """Wait for what is on its way, at most `limit` seconds, fail the rest, and end the thread."""
        engine, self._engine = self._engine, None
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        if engine is None:
            return
        waiting = [future for future, _, _ in self._pending.values()]
        if waiting and self.up:
            await asyncio.wait(waiting, timeout=limit)
        engine.end()
        self.up = False
        self.fail("The broker was closed: open it again, then send the message again with the same id.")
        await asyncio.to_thread(engine.thread.join, limit)

    def _sweep(self) -> None:
        """Begin anew when the oldest waits too long: one timer for all, which need no clock of their own."""
        self._sweeper = None
        now = self._runtime.clock.monotonic()
        if self._engine is not None and now - self._fresh > FRESH:
            self._fresh = now
            self._engine.firsts.forget()
        while self._marks and self._marks[0][0] <= now - self._timeout:
            _, newest = self._marks.popleft()
            if self._pending and next(iter(self._pending)) <= newest:
                self.up = False
                self._again(f"Kafka did not confirm within {self._timeout:g} s: send the message again with the same id.")
        if self._pending:
            self._marks.append((now, self._token))
            self._sweeper = self._runtime.clock.call_later(min(_SWEEP, self._timeout / 4), self._sweep)
        else:
            self._marks.clear()
