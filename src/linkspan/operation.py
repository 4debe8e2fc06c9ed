"""Operations: typed values, declared once in a service contract and named by handlers and callers alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, cast, overload

import protobuf
from protobuf.wkt.google.protobuf.descriptor_pb import MethodOptions

from linkspan.contract import Contract, find_contract
from linkspan.errors import SetupError
from linkspan.link import check_identifier
from linkspan.message import has_pii, is_event, is_message_class, package_of, type_name
from linkspan.options import MethodRules
from linkspan.routes import Http, adopted, check_overlaps, routes_of
from linkspan.service_descriptor import describe_service, generated_service

if TYPE_CHECKING:
    from protobuf import DescMethod, DescService

    from linkspan.routes import Route

__all__ = [
    "Answer",
    "BidiStream",
    "ClientStream",
    "Command",
    "EventType",
    "Operation",
    "Query",
    "ServerStream",
    "ServiceContract",
    "Stream",
    "Streaming",
    "command",
    "event",
    "query",
    "stream",
]

# Both stay invariant: with a covariant request, checkers accept any message for any operation (tests/typing).
Req = TypeVar("Req")
Res = TypeVar("Res")
# The functions that declare take messages only, so that whoever passes operations on needs no bound.
ReqMessage = TypeVar("ReqMessage", bound=protobuf.Message[Any])
ResMessage = TypeVar("ResMessage", bound=protobuf.Message[Any])
Answer = Literal["now", "later", "either"]
Kind = Literal["query", "command"]


_KINDS = ("unary", "server_streaming", "client_streaming", "bidi_streaming")


class Operation(Generic[Req, Res]):
    """One thing that a service answers: a request type, a response type, and the names that its service contract gives it.

    Attributes:
        kind: What it does, 'query' or 'command'.
        client_streaming: Whether it takes a stream of requests.
        server_streaming: Whether it answers with a stream.
        request: The class of the request; of each message of a stream.
        response: The class of the response; of each message of a stream.
        name: The attribute, as in 'get_order'.
        rpc_name: The name on the wire, as in 'GetOrder'.
        service_name: The full name of the service, as in 'shop.orders.v1.Orders'.
        path: The path of the URL, as in '/shop.orders.v1.Orders/GetOrder'.
        full_name: The name for people and logs, as in 'shop.orders.v1.Orders.GetOrder'.
        package: The proto package, as in 'shop.orders.v1'.
        http: How it is called over HTTP with JSON besides, None where nothing is declared.
        routes: The same, checked and taken apart.
    """

    __slots__ = ("full_name", "http", "name", "package", "path", "request", "response", "routes", "rpc_name", "service_name")

    kind: Kind
    client_streaming: ClassVar[bool] = False
    server_streaming: ClassVar[bool] = False

    def __init__(self, request: type[Req], response: type[Res], *, http: str | Http | None = None) -> None:
        self.request = request
        self.response = response
        self.http = None if http is None else Http.of(http)
        self.routes: tuple[Route, ...] = ()
        self.name = self.rpc_name = self.service_name = self.path = self.full_name = self.package = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.full_name or 'outside of any service contract'}>"

    def bind(self, package: str, service: str, name: str, rpc_name: str) -> None:
        """Take the names that the service contract gives; a value has one place."""
        where = f"{service}.{name}"
        request: Any = self.request
        response: Any = self.response
        if self.name:
            raise SetupError(f"Operation '{where}' is the same value as '{self.full_name}': declare it anew.")
        for role, cls in (("request", self.request), ("response", self.response)):
            if not is_message_class(cls):
                raise SetupError(f"Operation '{where}' has the {role} {cls!r}, which is no message class: name a Message.")
        if is_event(request):
            raise SetupError(f"Operation '{where}' takes the event '{type_name(request)}': events are published; take a Message.")
        self._check(where)
        if self.http is not None:
            self.routes = routes_of(where, self.http, request.desc(), response.desc(), reading=self.kind == "query")
        self.name, self.rpc_name, self.package = name, rpc_name, package
        self.service_name = f"{package}.{service}"
        self.path = f"/{self.service_name}/{rpc_name}"
        self.full_name = f"{self.service_name}.{rpc_name}"

    def rules(self) -> MethodRules:
        """Return what is declared beside the types, as it stands in the exported contract."""
        return MethodRules(command=self.kind == "command")

    def _check(self, where: str) -> None:
        """Refuse settings that cannot work."""


class Query(Operation[Req, Res]):
    """Reads and changes nothing; `staleness`, `budget` (latency) and `cache` are in seconds."""

    __slots__ = ("budget", "cache", "staleness")

    kind: Kind = "query"

    def __init__(
        self,
        request: type[Req],
        response: type[Res],
        *,
        staleness: float = 0.0,
        budget: float | None = None,
        cache: float | None = None,
        http: str | Http | None = None,
    ) -> None:
        super().__init__(request, response, http=http)
        self.staleness = staleness
        self.budget = budget
        self.cache = cache

    def rules(self) -> MethodRules:
        """Return staleness, budget and cache."""
        return MethodRules(staleness=self.staleness, budget=self.budget or 0.0, cache=self.cache or 0.0)

    def _check(self, where: str) -> None:
        _check_reading(where, self.staleness, self.budget)
        _check_seconds(where, "cache", self.cache)
        if self.cache is not None and has_pii(self.request):
            raise SetupError(f"Operation '{where}' would put personal data into URLs and their logs: take out cache=, or the field.")


class Streaming(Operation[Req, Res]):
    """A query or a command with a stream of messages on one side or both; answered on the direct path only.

    `staleness` is of queries; `budget` bounds the whole stream. Both are in seconds.
    """

    __slots__ = ("budget", "kind", "staleness")

    def __init__(
        self, request: type[Req], response: type[Res], *, kind: Kind = "query", staleness: float = 0.0, budget: float | None = None
    ) -> None:
        super().__init__(request, response)
        self.kind = kind
        self.staleness = staleness
        self.budget = budget

    def rules(self) -> MethodRules:
        """Return kind, staleness and budget."""
        return MethodRules(command=self.kind == "command", staleness=self.staleness, budget=self.budget or 0.0)

    def _check(self, where: str) -> None:
        _check_reading(where, self.staleness, self.budget)


class ServerStream(Streaming[Req, Res]):
    """One request, any number of responses."""

    __slots__ = ()

    server_streaming: ClassVar[bool] = True


class ClientStream(Streaming[Req, Res]):
    """Any number of requests, one response."""

    __slots__ = ()

    client_streaming: ClassVar[bool] = True


class BidiStream(Streaming[Req, Res]):
    """Any number of requests and of responses, in whatever order the two sides agree on."""

    __slots__ = ()

    client_streaming: ClassVar[bool] = True
    server_streaming: ClassVar[bool] = True


class Command(Operation[Req, Res]):
    """Asks for a change; `expires` is in seconds from the moment it was accepted."""

    __slots__ = ("answer", "expires")

    kind: Kind = "command"

    def __init__(
        self,
        request: type[Req],
        response: type[Res],
        *,
        answer: Answer = "either",
        expires: float | None = None,
        http: str | Http | None = None,
    ) -> None:
        super().__init__(request, response, http=http)
        self.answer = answer
        self.expires = expires

    def rules(self) -> MethodRules:
        """Return the answer mode and the expiry."""
        return MethodRules(command=True, answer=self.answer, expires=self.expires or 0.0)

    def _check(self, where: str) -> None:
        if self.answer not in ("now", "later", "either"):
            raise SetupError(f"Operation '{where}' has answer {self.answer!r}: take 'now', 'later' or 'either'.")
        _check_seconds(where, "expires", self.expires)


class EventType(Generic[Req]):
    """Says that a generated class is an event; `name` is its attribute, `full_name` that of the message."""

    __slots__ = ("full_name", "message", "name", "package")

    def __init__(self, message: type[Req]) -> None:
        self.message = message
        self.name = self.full_name = self.package = ""

    def __repr__(self) -> str:
        return f"<EventType {self.full_name or 'outside of any service contract'}>"

    def bind(self, service: str, name: str) -> None:
        """Take the name that the service contract gives."""
        if not is_message_class(self.message):
            raise SetupError(f"Event '{service}.{name}' is made of {self.message!r}, which is no message class: name a generated one.")
        message: Any = self.message
        self.name, self.full_name, self.package = name, type_name(message), package_of(message)


class Stream(Generic[Res]):
    """Marks a request or a response as a stream of messages: `query(WatchOrders, stream(Order))`."""

    __slots__ = ("message",)

    def __init__(self, message: type[Res]) -> None:
        self.message = message


def stream(message: type[ResMessage], /) -> Stream[ResMessage]:
    """Take or answer with any number of messages of this class."""
    return Stream(message)


@overload
def query(
    request: type[ReqMessage],
    response: type[ResMessage],
    /,
    *,
    staleness: float = 0.0,
    budget: float | None = None,
    cache: float | None = None,
    http: str | Http | None = None,
) -> Query[ReqMessage, ResMessage]: ...
@overload
def query(
    request: type[ReqMessage], response: Stream[ResMessage], /, *, staleness: float = 0.0, budget: float | None = None
) -> ServerStream[ReqMessage, ResMessage]: ...
@overload
def query(
    request: Stream[ReqMessage], response: type[ResMessage], /, *, staleness: float = 0.0, budget: float | None = None
) -> ClientStream[ReqMessage, ResMessage]: ...
@overload
def query(
    request: Stream[ReqMessage], response: Stream[ResMessage], /, *, staleness: float = 0.0, budget: float | None = None
) -> BidiStream[ReqMessage, ResMessage]: ...
def query(
    request: type[Any] | Stream[Any],
    response: type[Any] | Stream[Any],
    /,
    *,
    staleness: float = 0.0,
    budget: float | None = None,
    cache: float | None = None,
    http: str | Http | None = None,
) -> Operation[Any, Any]:
    """Declare an operation that reads and changes nothing.

    Args:
        request: The class of the request, or `stream(...)` of it.
        response: The class of the response, or `stream(...)` of it.
        staleness: How far behind the answer may be, in seconds.
        budget: How long the answer may take, in seconds; callers without a timeout get this one.
        cache: How long anybody on the way may keep and repeat the answer, in seconds; clients then ask by HTTP GET. Not for streams.
        http: The route for HTTP with JSON: `"GET /v1/orders/{order_id}"`, or an `Http` that says more. Not for streams.
    """
    if isinstance(request, Stream) or isinstance(response, Stream):
        if cache is not None:
            raise SetupError("A query with a stream cannot be cached: leave out 'cache'.")
        return _streaming("query", request, response, staleness=staleness, budget=budget, http=http)
    return Query(request, response, staleness=staleness, budget=budget, cache=cache, http=http)


@overload
def command(
    request: type[ReqMessage],
    response: type[ResMessage],
    /,
    *,
    answer: Answer = "either",
    expires: float | None = None,
    http: str | Http | None = None,
) -> Command[ReqMessage, ResMessage]: ...
@overload
def command(
    request: type[ReqMessage], response: Stream[ResMessage], /, *, budget: float | None = None
) -> ServerStream[ReqMessage, ResMessage]: ...
@overload
def command(
    request: Stream[ReqMessage], response: type[ResMessage], /, *, budget: float | None = None
) -> ClientStream[ReqMessage, ResMessage]: ...
@overload
def command(
    request: Stream[ReqMessage], response: Stream[ResMessage], /, *, budget: float | None = None
) -> BidiStream[ReqMessage, ResMessage]: ...
def command(
    request: type[Any] | Stream[Any],
    response: type[Any] | Stream[Any],
    /,
    *,
    answer: Answer = "either",
    expires: float | None = None,
    budget: float | None = None,
    http: str | Http | None = None,
) -> Operation[Any, Any]:
    """Declare an operation that asks for a change.

    Args:
        request: The class of the request, or `stream(...)` of it; its key field orders the commands that go by the durable path.
        response: The class of the response, or `stream(...)` of it.
        answer: 'now' (direct or brokered only), 'later' (durable only) or 'either'. A stream is always answered now.
        expires: Seconds after which a durable command is no longer to be carried out.
        budget: How long a stream may last, in seconds; callers without a timeout get this one.
        http: The route for HTTP with JSON: `"POST /v1/orders"`, or an `Http` that says more. Not for streams.
    """
    if isinstance(request, Stream) or isinstance(response, Stream):
        if answer != "either" or expires is not None:
            raise SetupError("A command with a stream is answered now and never stored: leave out 'answer' and 'expires'.")
        return _streaming("command", request, response, budget=budget, http=http)
    if budget is not None:
        raise SetupError("A command without a stream has no budget: leave it out; callers give a timeout.")
    return Command(request, response, answer=answer, expires=expires, http=http)


def _streaming(
    kind: Kind, request: object, response: object, *, staleness: float = 0.0, budget: float | None = None, http: object = None
) -> Streaming[Any, Any]:
    if http is not None:
        raise SetupError("An operation with a stream has no route, because HTTP with JSON answers once: leave `http` out.")
    streamed = isinstance(request, Stream), isinstance(response, Stream)
    cls, asked, given = _STREAMS[streamed], cast("Any", request), cast("Any", response)
    asked, given = asked.message if streamed[0] else asked, given.message if streamed[1] else given
    return cls(asked, given, kind=kind, staleness=staleness, budget=budget)


_STREAMS: dict[tuple[bool, bool], type[Streaming[Any, Any]]] = {
    (False, True): ServerStream,
    (True, False): ClientStream,
    (True, True): BidiStream,
}


def event(message: type[ReqMessage], /) -> EventType[ReqMessage]:
    """Declare that a generated class is an event; classes of our own derive from Event instead."""
    return EventType(message)


class ServiceContract:
    """The operations of one service, as attributes: `get_order = query(GetOrder, Order)`.

    Creating the class links its contract, so a wrong declaration fails at import.
    """

    operations: ClassVar[tuple[Operation[Any, Any], ...]] = ()
    events: ClassVar[tuple[EventType[Any], ...]] = ()
    full_name: ClassVar[str] = ""
    contract: ClassVar[Contract]

    def __init_subclass__(cls) -> None:
        contract = find_contract(cls.__module__)
        check_identifier(cls.__name__, f"Service '{cls.__qualname__}'")
        if contract is None:
            raise SetupError(
                f"Service '{cls.__name__}' belongs to no contract: write `contract = Contract(\"…\")` at the top of '{cls.__module__}'."
            )
        if cls.__bases__ != (ServiceContract,):
            raise SetupError(f"Service '{cls.__name__}' inherits from another: derive from ServiceContract and declare its operations.")
        contract.link()
        declared = _declared(cls)
        classes = [each for value in declared.values() for each in _classes(value) if is_message_class(each)]
        generated = generated_service(f"{contract.package}.{cls.__name__}", classes, cls.__module__)
        for name, value in declared.items():
            if isinstance(value, EventType):
                value.bind(cls.__name__, name)
            else:
                rpc_name = _rpc_name(cls.__name__, name, value, generated)
                value.bind(contract.package, cls.__name__, name, rpc_name)
        cls.operations = tuple(value for value in declared.values() if isinstance(value, Operation))
        cls.events = tuple(value for value in declared.values() if isinstance(value, EventType))
        cls.full_name = f"{contract.package}.{cls.__name__}"
        cls.contract = contract
        _check_unique(cls)
        check_overlaps((operation.full_name, route) for operation in cls.operations for route in operation.routes)
        if generated is None:
            contract.add_service(cls.__name__, lambda: describe_service(cls.__name__, cls.operations))


def _declared(cls: type[ServiceContract]) -> dict[str, Operation[Any, Any] | EventType[Any]]:
    declared: dict[str, Operation[Any, Any] | EventType[Any]] = {
        name: value for name, value in vars(cls).items() if isinstance(value, Operation | EventType)
    }
    for name in declared:
        check_identifier(name, f"Operation '{cls.__name__}.{name}'")
        if hasattr(ServiceContract, name) or name == "contract":
            raise SetupError(f"Operation '{cls.__name__}.{name}' hides a part of every service contract: take another name.")
    return declared


def _check_unique(cls: type[ServiceContract]) -> None:
    by_rpc: dict[str, str] = {}
    for operation in cls.operations:
        other = by_rpc.setdefault(operation.rpc_name, operation.name)
        if other != operation.name:
            raise SetupError(
                f"Operations '{other}' and '{operation.name}' of '{cls.__name__}' are both '{operation.rpc_name}': rename one."
            )


def _check_reading(where: str, staleness: float, budget: float | None) -> None:
    if not 0 <= staleness < math.inf:
        raise SetupError(f"Operation '{where}' has staleness {staleness}: give seconds, 0 or more.")
    _check_seconds(where, "budget", budget)


def _check_seconds(where: str, what: str, seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise SetupError(f"Operation '{where}' has {what} {seconds}: give seconds, more than 0, or leave it out.")


def _fold(name: str) -> str:
    return name.replace("_", "").lower()


def _classes(value: Operation[Any, Any] | EventType[Any]) -> tuple[type[Any], ...]:
    return (value.message,) if isinstance(value, EventType) else (value.request, value.response)


def _rpc_name(service: str, name: str, operation: Operation[Any, Any], generated: DescService | None) -> str:
    if generated is None:
        return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    for method in generated.methods:
        if _fold(method.name) == _fold(name):
            _check_method(f"{service}.{name}", operation, method)
            operation.http = adopted(f"{service}.{name}", operation.http, method)
            return method.name
    known = ", ".join(f"'{method.name}'" for method in generated.methods)
    raise SetupError(f"Operation '{service}.{name}' is not in the .proto file: name one of {known}.")


def _check_method(where: str, operation: Operation[Any, Any], method: DescMethod) -> None:
    wanted = (method.input.type_name, method.output.type_name)
    if (type_name(operation.request), type_name(operation.response)) != wanted:
        raise SetupError(f"Operation '{where}' has other types than its .proto file: write '{wanted[0]}' and '{wanted[1]}'.")
    kind = _KINDS[2 * operation.client_streaming + operation.server_streaming]
    if method.method_kind != kind:
        raise SetupError(f"Operation '{where}' is {kind} here and {method.method_kind} in its .proto file: declare it the same way.")
    if operation.kind == "command" and method.idempotency == MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS:
        raise SetupError(f"Operation '{where}' has no side effects in its .proto file: declare it with query().")
