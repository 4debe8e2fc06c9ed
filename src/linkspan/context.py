"""What a handler is given beside its request: the verbs, the transaction, and where the request came from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import msgspec

from linkspan.errors import Code, Error
from linkspan.path import Path, Side
from linkspan.trace import child_of
from linkspan.when import NOW, when_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from linkspan.attributes import Reference
    from linkspan.identity import Certificate, Identity
    from linkspan.message import Event
    from linkspan.operation import BidiStream, ClientStream, Command, EventType, Operation, Query, ServerStream
    from linkspan.ports import Outgoing, Runtime, Session, Store, Unit, Value
    from linkspan.when import Until, Wait, When

__all__ = ["Context", "Home", "Transaction", "derived_id", "keyed_id"]

Req = TypeVar("Req")
Res = TypeVar("Res")
R = TypeVar("R")

NO_DEADLINE = float("inf")


class Home(Protocol):
    """What a context needs from the service (or client) it belongs to."""

    name: str
    runtime: Runtime
    store: Store | None

    async def call_from(self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None) -> Any:
        """Carry a call over the direct path."""
        ...

    def stream_from(
        self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None
    ) -> AsyncGenerator[Any, None]:
        """Carry a stream over the direct path."""
        ...

    def outgoing_event(self, ctx: Context, kind: Any, message: Any, when: When) -> Outgoing:
        """Turn an event into a message for the outbox."""
        ...

    def outgoing_command(self, ctx: Context, operation: Operation[Any, Any], request: Any, key: str | None, when: When) -> Outgoing:
        """Turn a durable command into a message for the outbox."""
        ...

    async def stow(self, message: Outgoing) -> Outgoing:
        """Put a message's content into the blob place, and return the message that refers to it."""
        ...

    def fetched(self, reference: Reference) -> AbstractAsyncContextManager[bytes]:
        """Fetch such a content, for as long as it is worked on."""
        ...

    def resource(self, kind: type[R]) -> R:
        """Return the resource of this type."""
        ...

    def unit(self, inbox: tuple[str, str] | None = None) -> Unit:
        """Return an empty unit of work with the claim of the message that is handled."""
        ...


def derived_id(base: str, operation: str, ordinal: int) -> str:
    """Return an id that a repeated handler derives again: same request, same operation, same ordinal (DESIGN §5).

    It has the form of a UUIDv7 and keeps the time of a base that has one, so ids stay sorted by time.
    """
    digest = hashlib.blake2b(f"{base}\n{operation}\n{ordinal}".encode(), digest_size=15).hexdigest()
    head = base[:13] if len(base) == 36 and base[8] == "-" else f"{digest[18:26]}-{digest[26:30]}"  # noqa: PLR2004 - UUID text
    return f"{head}-7{digest[:3]}-8{digest[3:6]}-{digest[6:18]}"


def keyed_id(source: str, operation: str, key: str) -> str:
    """Return the id of the command that a service (`source`) sends under an idempotency key: the same however often it is sent."""
    return derived_id(f"{source}\n{key}", operation, 0)


class Transaction(msgspec.Struct, eq=False):
    """The service's database inside a handler: everything here commits with the inbox claim and the outgoing messages, or not at all.

    `record` is the fast way: the statement joins the group commit after the handler. `execute` runs at once and makes the
    transaction interactive: exclusive until the handler ends. In a query both are replaced by a read-only `execute`.
    """

    # No reference to the context: a cycle per message would be the garbage collector's work.
    store: Store | None
    unit: Unit
    read_only: bool
    session: Session | None = None

    def record(self, sql: str, *args: Value) -> None:
        """Add a statement to the commit. Its failure fails the handler's message, which is then retried."""
        if self.read_only:
            raise _read_only("record")
        self.unit.statements.append((sql, args))

    async def execute(self, sql: str, *args: Value) -> list[tuple[Any, ...]]:
        """Run a statement now and return its rows.

        Raises `Error`: UNAVAILABLE (locked, disk full), ALREADY_EXISTS (constraint), INTERNAL (wrong SQL).
        """
        store = self.store
        if store is None:
            raise Error(Code.FAILED_PRECONDITION, "There is no store here: declare the handler on a Service that has one.")
        if self.read_only:
            return await store.read(sql, args)
        if self.session is not None:
            return await self.session.execute(sql, args)
        try:
            opened = await store.begin(self.unit, sql, args)
        except Error as error:
            if not error.transient:
                self.session = _Failed()
            raise
        if opened is None:
            raise Duplicate
        self.session, rows = opened
        return rows

    @property
    def wrote(self) -> bool:
        """Tell whether a remote call would now hold the writer or precede a write."""
        return self.session is not None or bool(self.unit.statements) or bool(self.unit.messages)


class _Failed:
    """The session of a transaction whose first statement failed: a handler that swallows the error cannot commit the rest."""

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        del sql, args
        raise self._error()

    async def commit(self) -> None:
        raise self._error()

    async def rollback(self) -> None:
        """Do nothing: nothing is open."""

    def _error(self) -> Error:
        return Error(Code.FAILED_PRECONDITION, "The transaction has failed: let the handler fail, and begin another.")


class Duplicate(BaseException):
    """Ends a handler whose message turns out to be handled already. Not an `Exception`, so that no handler swallows it."""


class Oversized(Exception):  # noqa: N818 - no failure: the content is put elsewhere, and the message is sent
    """Ends the making of a message that is too large for the broker; `message` is whole, and to be stowed first."""

    def __init__(self, message: Outgoing) -> None:
        super().__init__(message.id)
        self.message = message


class Context(msgspec.Struct, eq=False):
    """One request on its way through handlers and middleware.

    `id` is the message's or call's id, `key` its idempotency key, `attempt` counts from 1, `deadline` is a moment on the
    runtime's monotonic clock, `parent` the W3C traceparent that came in, `caller` the name the other side gave. `identity` is
    who calls as proven by a middleware, None where nothing was proven, and always on the durable path. `certificate` is the
    verified client certificate of the connection; `same_process` says that a service of this very process calls.
    `emit` hands on one response of a stream, None where there is one answer; a middleware that must see each response
    puts its own in its place. `begins` says that nothing came before it, neither message nor call: its first message gives
    the flow its name.
    """

    home: Home
    operation: str
    id: str
    key: str
    correlation: str
    parent: str = ""
    caller: str = ""
    deadline: float = NO_DEADLINE
    path: Path = Path.DIRECT
    side: Side = Side.SERVER
    read_only: bool = False
    attempt: int = 1
    claim: tuple[str, str] | None = None
    emit: Callable[[Any], Awaitable[None]] | None = None
    _trace: str = ""
    _tx: Transaction | None = None
    _ordinal: int = 0
    identity: Identity | None = None
    certificate: Certificate | None = None
    same_process: bool = False
    _headers: dict[str, str] | None = None
    begins: bool = False

    def __repr__(self) -> str:
        return f"Context({self.operation!r}, id={self.id!r})"  # headers and claims are nobody's business

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that came with a call, names in lower case; on the client's side, those that middleware adds to it."""
        headers = self._headers
        if headers is None:
            headers = self._headers = {}
        return headers

    @property
    def service(self) -> str:
        """Return the name of the service that handles, or of the client that calls."""
        return self.home.name

    @property
    def trace(self) -> str:
        """Return the traceparent of this request's own span, which is made when somebody first asks."""
        trace = self._trace
        if not trace:
            trace = self._trace = child_of(self.parent, self.home.runtime.ids)
        return trace

    @trace.setter
    def trace(self, trace: str) -> None:
        self._trace = trace

    @property
    def rehearsing(self) -> bool:
        """Tell whether this is a dry run, which is undone: leave out what no rollback takes back, such as mails."""
        return bool(getattr(self.home, "rehearsing", False))

    @property
    def cause(self) -> str:
        """Return what leads to the messages of this handler: its own request's id, empty where there was none."""
        return "" if self.begins else self.id

    @property
    def time_left(self) -> float:
        """Return the seconds until the deadline, negative when it has passed, infinite without one."""
        return self.deadline - self.home.runtime.clock.monotonic()

    @property
    def tx(self) -> Transaction:
        """Return this handler's transaction; nothing is opened until it is used."""
        tx = self._tx
        if tx is None:
            home = self.home
            tx = self._tx = Transaction(home.store, home.unit(self.claim), self.read_only)
        return tx

    @property
    def used_tx(self) -> Transaction | None:
        """Return the transaction if the handler asked for it."""
        return self._tx

    def new_id(self) -> str:
        """Return an id that a retry of this handler gets again: derived from the request's id and how many were asked before.

        Service and caller are part of it: two services that react to one event, or two callers that happen to use the same
        key, must not get the same ids, which a broker would take for duplicates.
        """
        return self._next_id("")

    def message_id(self, what: str) -> str:
        """Return the id of the next message; its type and key are part of it: a repeat that says something else is none."""
        if self.begins and not self._ordinal:
            self._ordinal = 1
            return self.id  # nothing will ever repeat what no message or call began
        return self._next_id(f" {what}")

    def _next_id(self, what: str) -> str:
        self._ordinal += 1
        return derived_id(self.key, f"{self.home.name} {self.caller} {self.operation}{what}", self._ordinal)

    def resource(self, kind: type[R]) -> R:
        """Return what the service's lifespan provides of this type."""
        return self.home.resource(kind)

    @overload
    async def call(
        self, operation: Query[Req, Res] | Command[Req, Res], request: Req, /, *, timeout: float | None = None, key: str | None = None
    ) -> Res: ...
    @overload
    async def call(
        self,
        operation: ClientStream[Req, Res],
        requests: AsyncIterable[Req],
        /,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Res: ...
    async def call(self, operation: Operation[Any, Any], request: Any, /, *, timeout: float | None = None, key: str | None = None) -> Any:
        """Call now and wait for the answer, at most `timeout` seconds (default 5) and never beyond this request's own deadline.

        An operation that takes a stream is given an async iterable of requests, and has no timeout by default. Raises
        `Error`; DEADLINE_EXCEEDED and UNAVAILABLE leave open whether the other side did it. After the first statement of
        a transaction it is refused: call first, or `send`.
        """
        self._check_call(operation)
        return await self.home.call_from(self, operation, request, timeout, key)

    @overload
    def stream(
        self, operation: ServerStream[Req, Res], request: Req, /, *, timeout: float | None = None, key: str | None = None
    ) -> AsyncGenerator[Res, None]: ...
    @overload
    def stream(
        self,
        operation: BidiStream[Req, Res],
        requests: AsyncIterable[Req],
        /,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> AsyncGenerator[Res, None]: ...
    def stream(
        self, operation: Operation[Any, Any], request: Any, /, *, timeout: float | None = None, key: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Call now and iterate over the answers: `async for order in ctx.stream(Orders.watch, WatchOrders(...))`.

        The whole stream may take `timeout` seconds (default: the operation's budget, else no limit) and ends with this
        request's own deadline. Leaving the loop cancels the other side; `contextlib.aclosing` does so at once, whoever
        else holds the iterator. Raises `Error` where an answer is awaited.
        """
        self._check_call(operation)
        return self.home.stream_from(self, operation, request, timeout, key)

    def _check_call(self, operation: Operation[Any, Any]) -> None:
        if self._tx is not None and self._tx.wrote:
            raise Error(
                Code.FAILED_PRECONDITION,
                f"Cannot call '{operation.full_name}' after the first statement of a transaction: call first, or use send.",
            )

    async def send(
        self,
        operation: Command[Req, Any],
        request: Req,
        /,
        *,
        key: str | None = None,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str:
        """Send a durable command in this transaction, and return its id: it leaves when the handler's work commits.

        The same `key` for the same operation is one effect at the receiver, however often it is sent. With `after` (seconds) or `at` it
        is kept in the store and leaves then, unless `cancel` takes it back. Past `expires` (a moment, or seconds from when it leaves) it
        is not handled any more; the contract's own expiry counts where it is earlier.
        """
        if self.read_only:
            raise _read_only("send")
        when = NOW if after is None and at is None and expires is None else when_of(self.home.runtime.clock.now(), after, at, expires)
        try:
            message = self.home.outgoing_command(self, operation, request, key, when)
        except Oversized as large:
            message = await self.home.stow(large.message)
        if when.due:
            self._schedule(message, when.due)
        else:
            self.tx.unit.messages.append(message)
        return message.id

    @overload
    async def publish(
        self, event: Event, /, *, after: Wait | None = None, at: datetime | None = None, expires: Until | None = None
    ) -> str: ...
    @overload
    async def publish(
        self,
        event: EventType[Req],
        message: Req,
        /,
        *,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str: ...
    async def publish(
        self,
        event: Any,
        message: Any = None,
        /,
        *,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str:
        """Publish an event in this transaction, and return its id; `after`, `at` and `expires` are those of `send`."""
        if self.read_only:
            raise _read_only("publish")
        when = NOW if after is None and at is None and expires is None else when_of(self.home.runtime.clock.now(), after, at, expires)
        try:
            outgoing = self.home.outgoing_event(self, event, message, when)
        except Oversized as large:
            outgoing = await self.home.stow(large.message)
        if when.due:
            self._schedule(outgoing, when.due)
        else:
            self.tx.unit.messages.append(outgoing)
        return outgoing.id

    def _schedule(self, message: Outgoing, due: float) -> None:
        """Keep a message in the store until it is due."""
        tx = self.tx
        if tx.store is None:
            raise _no_store()
        tx.store.add_scheduled(tx.unit, message, due, f"/{self.home.name}")
        tx.unit.due = min(due, tx.unit.due or due)

    @overload
    async def cancel(self, message: str, /) -> bool: ...
    @overload
    async def cancel(self, message: Command[Any, Any], /, *, key: str) -> bool: ...
    async def cancel(self, message: Any, /, *, key: str | None = None) -> bool:
        """Take back a scheduled message in this transaction: by the id that `send` or `publish` returned, or a command by its `key`.

        Returns False where there is none any more: it has left, or was cancelled. If the transaction does not commit, it stays.
        """
        if self.read_only:
            raise _read_only("cancel")
        tx, source = self.tx, f"/{self.home.name}"
        if tx.store is None:
            raise _no_store()
        if isinstance(message, str) is (key is not None):
            raise Error(Code.INVALID_ARGUMENT, "Give cancel the id that send returned, or a command and its key: one of the two.")
        id_ = message if key is None else keyed_id(source, message.full_name, key)
        sql, args = tx.store.cancelling(source, id_)
        return bool(await tx.execute(sql, *args))


def _no_store() -> Error:
    return Error(Code.FAILED_PRECONDITION, "There is no store here to keep it in: send it from a handler or transaction of a Service.")


def _read_only(verb: str) -> Error:
    return Error(Code.FAILED_PRECONDITION, f"Cannot {verb} in a query, which changes nothing: declare the operation with command().")
