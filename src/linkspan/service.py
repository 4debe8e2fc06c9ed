"""A service: a name, the contracts it implements, its handlers, and the database it owns."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from linkspan.context import Context
from linkspan.errors import SetupError
from linkspan.incoming.breaker import BREAKER, Breaker
from linkspan.incoming.foreign import ForeignSource, foreign_source
from linkspan.incoming.inbox import RETENTION
from linkspan.limits import Limits
from linkspan.message import has_key, is_event, is_message_class, package_of, type_name
from linkspan.operation import BidiStream, ClientStream, Command, EventType, Operation, Query, ServerStream, ServiceContract
from linkspan.owner import owned
from linkspan.validation import check_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from linkspan.batch import Batches
    from linkspan.handler import Middleware
    from linkspan.message import Event
    from linkspan.outgoing.handover import HandOver
    from linkspan.owner import Owns

__all__ = ["Handled", "Service"]

Req = TypeVar("Req")
Res = TypeVar("Res")
E = TypeVar("E", bound="Event")
Unary = Callable[[Context, Req], Coroutine[Any, Any, Res]]
Watching = Callable[[Context, Req], AsyncIterator[Res]]
Uploading = Callable[[Context, AsyncIterator[Req]], Coroutine[Any, Any, Res]]
Chatting = Callable[[Context, AsyncIterator[Req]], AsyncIterator[Res]]


@dataclass(frozen=True, slots=True)
class Handled:
    """A handler with what it handles: an operation (calls and durable commands) or an event class."""

    name: str
    operation: Operation[Any, Any] | None
    request: type[Any]
    package: str
    function: Callable[[Context, Any], Any]
    once: bool
    limits: Limits | None = None


class Service:
    """Declare a service; an `App` runs it.

    Args:
        name: Lower-case letters, digits and dashes; the consumer group, the source of its messages, the name of its database.
        contracts: The service contracts it implements; it has to handle each of their operations.
        store: The URL of its database. By default one of its own, from the App's template; naming the same URL in two
            services of an App shares it.
        lifespan: Opens what handlers need (pools, clients, settings): an async context manager that yields one object or a
            tuple of them, found again by type with `ctx.resource(Pool)`.
        migrations: The service's own tables: a folder of numbered `.sql` files or a sequence of SQL texts. Applied at
            start, in order, each once and in one transaction; a changed one is refused.
        middleware: Wraps this service's handlers, inside the App's middleware.
        limits: How long handlers of messages may take, how many run at a time, how failing messages are retried and held.
        breaker: When the messages of a topic wait because what the handlers depend on is away; None: never.
        prefetch: Messages of a topic that an instance holds at most; by default, half a second of its handlers' work.
        retention: Seconds that the ids of handled messages are remembered; as long as messages may be retried, at least.
        outbox: Where the user's own transactions hand over messages that this service publishes: `linkspan.sqlalchemy.Outbox`.
        owns: The contracts (or their packages, or event classes) whose events it alone publishes; default: those of its contracts.
        letter_events: Publish an event when a message is parked, dies or recovers: `linkspan.letter_events`, for those who alert.
        batches: Which topics it publishes to in batches, compressed; default: none. Only Linkspan reads those.
    """

    def __init__(  # noqa: PLR0913 - settings, all with defaults
        self,
        name: str,
        *contracts: type[ServiceContract],
        store: str | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None,
        migrations: FilePath | Sequence[str] = (),
        middleware: Sequence[Middleware] = (),
        limits: Limits | None = None,
        breaker: Breaker | None = BREAKER,
        prefetch: int | None = None,
        retention: float = RETENTION,
        owns: Owns | None = None,
        outbox: HandOver | None = None,
        batches: Batches | None = None,
        letter_events: bool = False,
    ) -> None:
        if not name or not name.replace("-", "").isalnum() or not name.isascii() or name != name.lower():
            raise SetupError(f"Service name '{name}' cannot be used: write lower-case letters, digits and dashes.")
        for contract in cast("tuple[object, ...]", contracts):
            if not (isinstance(contract, type) and issubclass(contract, ServiceContract)):
                raise SetupError(f"Service '{name}' was given {contract!r}: name classes that derive from ServiceContract.")
        if isinstance(migrations, str):
            raise SetupError(f"Service '{name}' has a text as migrations: give a list of texts, or Path(...) for a folder.")
        self.name = name
        self.contracts = contracts
        self.store = store
        self.lifespan = lifespan
        self.middleware = tuple(middleware)
        self.letter_events = letter_events
        self.limits = limits or Limits()
        if prefetch is not None and prefetch < 1:
            raise SetupError(f"Service '{name}' cannot prefetch {prefetch!r}: use 1 or more, or leave it out.")
        self.prefetch = prefetch
        self.breaker = breaker
        self.retention = retention
        self.operations: dict[str, Handled] = {}
        self.events: dict[str, Handled] = {}
        self.owned = owned(f"Service '{name}'", owns, contracts)
        self.sources: list[ForeignSource] = []
        self.batches = batches
        self.outbox = outbox
        if outbox is not None:
            outbox.bind(name, self.owned)
        self._migrations = migrations

    def __repr__(self) -> str:
        return f"Service({self.name!r})"

    @overload
    def handles(
        self, operation: Query[Req, Res] | Command[Req, Res], *, limits: Limits | None = None, timeout: float | None = None
    ) -> Callable[[Unary[Req, Res]], Unary[Req, Res]]: ...
    @overload
    def handles(self, operation: ServerStream[Req, Res]) -> Callable[[Watching[Req, Res]], Watching[Req, Res]]: ...
    @overload
    def handles(self, operation: ClientStream[Req, Res]) -> Callable[[Uploading[Req, Res]], Uploading[Req, Res]]: ...
    @overload
    def handles(self, operation: BidiStream[Req, Res]) -> Callable[[Chatting[Req, Res]], Chatting[Req, Res]]: ...
    def handles(self, operation: Any, *, limits: Limits | None = None, timeout: float | None = None) -> Any:
        """Answer an operation of this service's contracts, however it travels: `@orders.handles(Orders.get_order)`.

        The handler of an operation that answers with a stream yields its responses (`async def` with `yield`); the handler of
        one that takes a stream is given an async iterator of requests. `limits` (or just another `timeout`, in seconds) is how messages
        of a durable command are handled, in place of the service's.
        """
        if not isinstance(cast("object", operation), Operation):
            raise SetupError(f"Service '{self.name}' cannot handle {operation!r}: name a query or command of a ServiceContract.")
        declared: Operation[Any, Any] = operation
        if not any(declared in contract.operations for contract in self.contracts):
            raise SetupError(f"Service '{self.name}' does not implement '{declared.service_name}': add it to Service(...).")
        if declared.path in self.operations:
            raise SetupError(f"Service '{self.name}' handles '{declared.full_name}' twice: keep one handler.")

        own = self._own_limits(declared.full_name, limits, timeout)
        if own is not None and not isinstance(declared, Command):
            raise SetupError(f"'{declared.full_name}' has limits, and no message ever carries it: limits are for commands and events.")

        def register(function: Any) -> Any:
            self._check_function(declared.full_name, function, yields=declared.server_streaming)
            handled = Handled(declared.full_name, declared, declared.request, declared.package, function, once=True, limits=own)
            self.operations[declared.path] = handled
            return function

        return register

    @overload
    def on(
        self, event: type[E], *, once: bool = True, limits: Limits | None = None, timeout: float | None = None
    ) -> Callable[[Unary[E, None]], Unary[E, None]]: ...
    @overload
    def on(
        self, event: EventType[Req], *, once: bool = True, limits: Limits | None = None, timeout: float | None = None
    ) -> Callable[[Unary[Req, None]], Unary[Req, None]]: ...
    def on(self, event: Any, *, once: bool = True, limits: Limits | None = None, timeout: float | None = None) -> Any:
        """React to an event: `@mail.on(OrderPlaced)`.

        With `once=False` the inbox is left out: faster, and the handler may run again for the same message. `limits` (or just another
        `timeout`, in seconds) is how its messages are handled, in place of the service's.
        """
        cls: Any = cast("Any", event).message if isinstance(event, EventType) else event
        if not isinstance(event, EventType) and not (isinstance(cls, type) and is_event(cls)):
            raise SetupError(f"Service '{self.name}' cannot react to {event!r}: name an Event class, or event(...) of a contract.")
        name = type_name(cls)
        if name in self.events:
            raise SetupError(f"Service '{self.name}' reacts to '{name}' twice: keep one handler and call both parts from it.")
        if not isinstance(event, EventType) and not has_key(cls):
            raise SetupError(f"Event '{name}' has no order key: mark one field with field(..., key=True).")

        own = self._own_limits(name, limits, timeout)

        def register(function: Any) -> Any:
            self._check_function(name, function)
            self.events[name] = Handled(name, None, cls, package_of(cls), function, once=once, limits=own)
            return function

        return register

    def reads(self, subject: str, event: type[Any] | EventType[Any], *, stream: str = "") -> None:
        """Take what a foreign program publishes on a subject as events of a class, handled by its `on` handler.

        JSON and MessagePack bodies are read by their content type, as ProtoJSON. `stream` is the JetStream stream that keeps the subject;
        left out, one is made. Inbox, order per key, retries and dead letters hold as for any event. On NATS only.
        """
        cls: Any = event.message if isinstance(event, EventType) else event
        if not is_message_class(cls) or not has_key(cls):
            raise SetupError(f"Service '{self.name}' cannot read '{subject}' as {cls!r}: name an event class with an order key.")
        if any(source.subject == subject for source in self.sources):
            raise SetupError(f"Service '{self.name}' reads '{subject}' twice: name it once.")
        self.sources.append(foreign_source(self.name, subject, cls, stream))

    def _own_limits(self, name: str, limits: Limits | None, timeout: float | None) -> Limits | None:
        """Return the limits that a handler has for itself."""
        if limits is not None and timeout is not None:
            raise SetupError(f"The handler of '{name}' has limits and a timeout: write the timeout into the limits.")
        return replace(self.limits, timeout=timeout) if timeout is not None else limits

    def _check_function(self, name: str, function: object, *, yields: bool = False) -> None:
        callees = (function, getattr(function, "__call__", None))  # noqa: B004 - an object may be the handler
        if yields and not any(map(isasyncgenfunction, callees)):
            text = f"Service '{self.name}' answers the stream '{name}' with {function!r}, which yields nothing: write async def with yield."
            raise SetupError(text)
        if not yields and not any(map(iscoroutinefunction, callees)):
            raise SetupError(f"Service '{self.name}' handles '{name}' with {function!r}, which is not async: write async def.")

    @property
    def batched(self) -> dict[str, Batches]:
        """Return the topics that it publishes to in batches, and how."""
        if self.batches is None:
            return {}
        packages = {contract.contract.package for contract in self.contracts} | self.owned.places
        return dict.fromkeys(self.batches.topics or sorted(f"{package}.events" for package in packages), self.batches)

    def scripts(self) -> list[tuple[str, str]]:
        """Return the migrations as `(name, sql)`, in order."""
        given = self._migrations
        if isinstance(given, FilePath):
            files = sorted(given.glob("*.sql"), key=_file_order)
            if not files:
                raise SetupError(
                    f"The migrations folder '{given}' of service '{self.name}' has no .sql file: create it or correct the path."
                )
            return [(file.name, file.read_text(encoding="utf-8")) for file in files]
        return [(f"{number:04d}", sql) for number, sql in enumerate(given, 1)]

    def check(self) -> None:
        """Refuse a declaration that could not serve its contract. Raises `SetupError`."""
        for handled in (*self.operations.values(), *self.events.values()):
            check_of(handled.request)
            self._check_retention(handled)
        if self.batches is not None and not self.batched:
            raise SetupError(f"Service '{self.name}' has batches, but owns no events: name the topics in Batches(topics=[...]).")
        for source in self.sources:
            if type_name(source.event) not in self.events:
                name = source.event.__name__
                raise SetupError(f"Service '{self.name}' reads '{source.subject}' without a handler: add @{self.name}.on({name}).")
        for contract in self.contracts:
            contract.contract.link()
            for operation in contract.operations:
                if operation.path not in self.operations:
                    hint = f"add @{self.name}.handles({contract.__name__}.{operation.name})"
                    raise SetupError(f"Service '{self.name}' has no handler for '{operation.full_name}': {hint}.")
                if isinstance(operation, Command) and operation.answer == "later" and not has_key(operation.request):
                    raise SetupError(f"Command '{operation.full_name}' answers later without an order key: mark a field with key=True.")

    def _check_retention(self, handled: Handled) -> None:
        longest = (handled.limits or self.limits).max_age
        if self.retention < longest:
            text = f"which may come again for {longest:g} s: remember at least as long."
            raise SetupError(f"Service '{self.name}' remembers '{handled.name}' for {self.retention:g} s, {text}")


def _file_order(file: FilePath) -> tuple[int, str]:
    """Order files by the number that their names begin with, so that 10 comes after 9."""
    digits = re.match(r"\d+", file.name)
    return (int(digits[0]) if digits else sys.maxsize, file.name)
