"""Routes of operations: how `http="GET /v1/orders/{order_id}"` becomes a checked rule, and a `google.api.http` option and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from protobuf import (
    DescField,
    DescFieldValueEnum,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescFieldValueScalar,
    DescMessage,
    Oneof,
)

from linkspan.errors import Code, SetupError
from linkspan.http_rule import CustomHttpPattern, HttpRule, ext_http
from linkspan.template import PathTemplate, relation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from protobuf import DescMethod

__all__ = [
    "ALL",
    "Http",
    "Route",
    "adopted",
    "check_overlaps",
    "fields_at",
    "inner_message",
    "is_leaf",
    "is_leaf_list",
    "parameters",
    "routes_of",
]

ALL: Final = "*"
"""The body that holds the whole request."""
LEAVES: Final = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Timestamp", "Duration", "FieldMask"),
        *(f"{kind}Value" for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")),
    )
)
"""Messages that are one text in JSON, and so in a path or a query."""

_BODIES: Final = {"GET": "", "DELETE": "", "POST": ALL, "PUT": ALL, "PATCH": ALL}
_FREE: Final = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any"})
_DEPTH: Final = 5
"""Levels of messages inside each other whose fields are parameters: `a.b.c.d.e`."""


@dataclass(frozen=True, slots=True)
class Http:
    """Says how an operation is called over HTTP with JSON, by the rules of `google.api.http`.

    Attributes:
        route: Method and path template: `POST /v1/orders/{order_id}:cancel`, `GET /v1/{name=shelves/*/books/*}`.
        body: What the request's body holds: `*` for all fields that are not in the path, a field's name for just that one,
            or nothing. By default `*` for POST, PUT and PATCH and nothing for GET and DELETE. All else are query parameters.
        response_body: The field of the response that is the answer's body; by default all of it.
        additional: Further routes of the same operation, as texts or `Http`.
        errors: For services of others: which code stands for a status that they give a meaning of their own.
    """

    route: str
    body: str | None = None
    response_body: str = ""
    additional: tuple[str | Http, ...] = ()
    errors: Mapping[int, Code] = field(default_factory=dict[int, Code])

    @classmethod
    def of(cls, given: str | Http) -> Http:
        """Return the rule for what a declaration says."""
        return given if isinstance(given, Http) else cls(given)

    @classmethod
    def from_rule(cls, rule: HttpRule) -> Http:
        """Read the option of a method."""
        pattern = rule.pattern
        if pattern is None:
            route = ""
        elif isinstance(pattern.value, CustomHttpPattern):
            route = f"{pattern.value.kind} {pattern.value.path}"
        else:
            route = f"{pattern.field.upper()} {pattern.value}"
        additional = tuple(cls.from_rule(each) for each in rule.additional_bindings)
        return cls(route, rule.body, rule.response_body, additional)

    @property
    def bindings(self) -> tuple[Http, ...]:
        """Return this rule and the additional ones."""
        return (self, *(Http.of(each) for each in self.additional))

    @property
    def method(self) -> str:
        """Return the HTTP method."""
        return self.route.partition(" ")[0]

    @property
    def resolved_body(self) -> str:
        """Return the body as the option writes it: `*`, a field's name, or empty."""
        return _BODIES.get(self.method, "") if self.body is None else self.body

    def rule(self) -> HttpRule:
        """Return the option of a method, with the additional routes inside."""
        method, _, path = self.route.partition(" ")
        known = method in _BODIES
        pattern: Any = Oneof(method.lower(), path) if known else Oneof("custom", CustomHttpPattern(kind=method, path=path))
        rule = HttpRule(pattern=pattern, body=self.resolved_body, response_body=self.response_body)
        rule.additional_bindings.extend(Http.of(each).rule() for each in self.additional)
        return rule


@dataclass(frozen=True, slots=True)
class Route:
    """One checked rule of an operation."""

    method: str
    template: PathTemplate
    body: str
    response_body: str

    def __str__(self) -> str:
        return f"{self.method} {self.template.text}"


def adopted(where: str, declared: Http | None, method: DescMethod) -> Http | None:
    """Return the rule of an operation whose .proto file may have one; declared in both places, they must agree. Raises `SetupError`."""
    options = method.proto.options
    written = Http.from_rule(options[ext_http]) if options is not None and ext_http in options else None
    if declared is None:
        return written if method.method_kind == "unary" else None
    if written is None or declared.rule() != written.rule():
        raise SetupError(f"Operation '{where}' has a route that its .proto file does not have: write it there, as (google.api.http).")
    return declared


def routes_of(where: str, http: Http, request: DescMessage, response: DescMessage, *, reading: bool) -> tuple[Route, ...]:
    """Check a rule against the types of its operation and return its routes. Raises `SetupError`."""
    routes: list[Route] = []
    for each in http.bindings:
        try:
            if each is not http and each.additional:
                raise ValueError("which has additional routes of its own: list all at the first.")  # noqa: TRY301 - told like the rest
            routes.append(_route(each, request, response, reading=reading))
        except ValueError as error:
            raise SetupError(f"Operation '{where}' has the route '{each.route}', {error}") from None
    return tuple(routes)


def _route(http: Http, request: DescMessage, response: DescMessage, *, reading: bool) -> Route:
    method, _, path = http.route.partition(" ")
    if method not in _BODIES:
        raise ValueError("which does not begin with a method: write GET, POST, PUT, PATCH or DELETE, a space and a path.")
    if method == "GET" and not reading:
        raise ValueError("but a GET changes nothing: declare the operation with query(), or take POST, PUT, PATCH or DELETE.")
    try:
        template = PathTemplate.parse(path)
    except ValueError as error:
        raise ValueError(f"{error}: write it as in '/v1/orders/{{order_id}}'.") from None
    route = Route(method, template, http.resolved_body, http.response_body)
    _check_path(route, request)
    _check_body(route, request, response)
    return route


def _check_path(route: Route, request: DescMessage) -> None:
    names = [variable.field for variable in route.template.variables]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"which has '{{{name}}}' twice: name each field once.")
        found = _field_at(request, name)
        if found is None:
            raise ValueError(f"but '{request.type_name}' has no field '{name}': name one of {_fields(request)}.")
        if not is_leaf(found):
            raise ValueError(f"but '{name}' is not a single value: only such fields can be part of a path.")


def _check_body(route: Route, request: DescMessage, response: DescMessage) -> None:
    if route.body and route.method in {"GET", "DELETE"}:
        raise ValueError(f"but a {route.method} has no body: leave `body` out, or take POST.")
    if route.body not in {"", ALL} and ("." in route.body or _field_at(request, route.body) is None):
        raise ValueError(f"but '{request.type_name}' has no field '{route.body}' for the body: name one of {_fields(request)}, or '*'.")
    if route.response_body and ("." in route.response_body or _field_at(response, route.response_body) is None):
        text = f"but '{response.type_name}' has no field '{route.response_body}' for the answer's body: name one of {_fields(response)}."
        raise ValueError(text)
    if any(variable.field == route.body for variable in route.template.variables):
        raise ValueError(f"which has '{route.body}' in the path and as the body: keep one.")
    if route.body == ALL:
        return
    bound = {variable.field.partition(".")[0] for variable in route.template.variables} | {route.body}
    for each in request.fields:
        if each.name not in bound and not _can_be_parameter(each):
            raise ValueError(f"where '{each.name}' would be a query parameter, which a {_kind(each)} cannot be: give it the body.")


def check_overlaps(routes: Iterable[tuple[str, Route]]) -> None:
    """Refuse routes that match the same paths, unless one is the narrower and so goes first.

    Takes `(operation, route)`. Raises `SetupError`.
    """
    for (name, one), (other_name, other) in combinations(routes, 2):
        if one.method == other.method and relation(one.template, other.template) in {"same", "crossing"}:
            raise SetupError(
                f"The routes '{one}' of '{name}' and '{other}' of '{other_name}' match the same paths, "
                "and neither is the narrower: change one of them."
            )


def _field_at(desc: DescMessage, path: str) -> DescField | None:
    """Return the field that a path such as `customer.address.city` names as the contract does, None where there is none."""
    chain = fields_at(desc, path)
    return chain[-1] if chain and ".".join(each.name for each in chain) == path else None


def fields_at(desc: DescMessage, path: str) -> list[DescField]:
    """Return the fields along a path, empty where one of them is not there. Takes JSON names, too."""
    chain: list[DescField] = []
    current: DescMessage | None = desc
    for name in path.split("."):
        found = None if current is None else next((each for each in current.fields if name in {each.name, each.json_name}), None)
        if found is None:
            return []
        chain.append(found)
        current = inner_message(found)
    return chain


def inner_message(found: DescField) -> DescMessage | None:
    """Return the message whose fields a path may go on to."""
    if isinstance(found.value, DescFieldValueMessage) and found.value.message.type_name not in LEAVES | _FREE:
        return found.value.message
    return None


def is_leaf(found: DescField) -> bool:
    """Tell whether a field is a single value that has one text: a scalar, an enum, a wrapper, a Timestamp, a Duration or a FieldMask."""
    match found.value:
        case DescFieldValueScalar() | DescFieldValueEnum():
            return True
        case DescFieldValueMessage(message=message):
            return message.type_name in LEAVES
        case _:
            return False


def is_leaf_list(found: DescField) -> bool:
    """Tell whether a field is a list of such values: a parameter that may come several times."""
    if not isinstance(found.value, DescFieldValueList):
        return False
    element = found.value.element
    return not isinstance(element, DescMessage) or element.type_name in LEAVES


def parameters(route: Route, request: DescMessage) -> Iterator[list[DescField]]:
    """Yield the fields that are query parameters of a route, each as the chain of fields that leads to it."""
    if route.body == ALL:
        return
    bound = {tuple(each.name for each in fields_at(request, variable.field)) for variable in route.template.variables}
    for each in request.fields:
        if each.name != route.body:
            yield from (chain for chain in _leaves([each]) if tuple(link.name for link in chain) not in bound)


def _leaves(chain: list[DescField]) -> Iterator[list[DescField]]:
    last = chain[-1]
    if is_leaf(last) or is_leaf_list(last):
        yield chain
    inner = inner_message(last)
    if inner is not None and len(chain) < _DEPTH and all(inner.type_name != link.parent.type_name for link in chain):
        for each in inner.fields:
            yield from _leaves([*chain, each])


def _can_be_parameter(found: DescField) -> bool:
    return is_leaf(found) or is_leaf_list(found) or inner_message(found) is not None


def _kind(found: DescField) -> str:
    match found.value:
        case DescFieldValueMap():
            return "map"
        case DescFieldValueList():
            return "list of messages"
        case _:
            return "free-form value"


def _fields(desc: DescMessage) -> str:
    return ", ".join(f"'{each.name}'" for each in desc.fields) or "none, it has no fields"
