"""How a route splits a message into path, query and body, and puts it together again (google/api/http.proto)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, quote

from protobuf import DescFieldValueList, DescFieldValueMap, DescFieldValueMessage

from linkspan.errors import Code, Error
from linkspan.nesting import too_deep
from linkspan.routes import ALL, fields_at, inner_message, is_leaf, is_leaf_list
from linkspan.transport.rest_values import kind_of, put, write_text
from linkspan.transport.unary import UNWRITABLE, misfilled, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from protobuf import DescField, Message

    from linkspan.routes import Route

__all__ = ["build_request", "read_answer", "read_request", "write_answer"]

_MOST_PARAMETERS: Final = 1000
_MOST_LEVELS: Final = 16
_SHOWN: Final = 64


# --- the server's side


def read_request(route: Route, cls: type[Message[Any]], path: Mapping[str, str], query: str, body: bytes) -> Any:
    """Return the message that the variables of a path, a query string and a body make up. Raises `Error`, which names what is wrong."""
    message = _from_body(route, cls, body)
    taken = {_names(fields_at(cls.desc(), name)): name for name in path}
    for names, (shown, texts) in _grouped(route, cls, query).items():
        if names in taken:
            raise Error(Code.INVALID_ARGUMENT, f"The parameter '{shown}' is part of the path: leave it out of the query.")
        put(message, fields_at(cls.desc(), ".".join(names)), texts, shown)
    for name, text in path.items():
        put(message, fields_at(cls.desc(), name), [text], name)
    return message


def _from_body(route: Route, cls: type[Message[Any]], body: bytes) -> Any:
    if not route.body:
        if body:
            raise Error(Code.INVALID_ARGUMENT, f"'{route}' takes no body: send path and query only.")
        return cls()
    if route.body == ALL:
        return read_json(body or b"{}", cls, Code.INVALID_ARGUMENT)
    (found,) = fields_at(cls.desc(), route.body)
    return _wrapped(cls, found, body, Code.INVALID_ARGUMENT) if body else cls()


def _wrapped(cls: type[Message[Any]], found: DescField, body: bytes, code: Code) -> Any:
    """Read a text that is the value of one field."""
    try:
        value = None if too_deep(body) else json.loads(body)
        data = json.dumps({found.json_name: value}).encode()
    except (ValueError, RecursionError) as error:
        raise Error(code, f"Reading '{found.name}' from JSON failed: send one JSON value.") from error
    if too_deep(body):
        raise Error(code, f"Reading '{found.name}' from JSON failed: it nests too deeply.")
    return read_json(data, cls, code)


def _grouped(route: Route, cls: type[Message[Any]], query: str) -> dict[tuple[str, ...], tuple[str, list[str]]]:
    """Return the parameters of a query by the fields that they name: how the caller wrote the name, and the texts."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        text = f"Reading the query failed: send at most {_MOST_PARAMETERS} parameters, percent-encoded in UTF-8."
        raise Error(Code.INVALID_ARGUMENT, text) from None
    grouped: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for name, text in pairs:
        chain = fields_at(cls.desc(), name) if name.count(".") <= _MOST_LEVELS else []
        if not chain or not (is_leaf(chain[-1]) or is_leaf_list(chain[-1])):
            raise Error(Code.INVALID_ARGUMENT, f"'{route}' has no parameter {_shown(name)}: check how it is written.")
        if route.body == ALL or chain[0].name == route.body:
            raise Error(Code.INVALID_ARGUMENT, f"The parameter {_shown(name)} is part of the body: leave it out of the query.")
        grouped.setdefault(_names(chain), (name, []))[1].append(text)
    return grouped


def _names(chain: Sequence[DescField]) -> tuple[str, ...]:
    return tuple(each.name for each in chain)


def _shown(name: str) -> str:
    return f"'{name}'" if name.isascii() and name.isprintable() and len(name) <= _SHOWN else "of that name"


def write_answer(route: Route, response: Message[Any]) -> bytes:
    """Return the body of an answer. Raises one of `UNWRITABLE`."""
    text = write_json(response)
    if not route.response_body:
        return text
    (found,) = fields_at(response.desc(), route.response_body)
    written: dict[str, Any] = json.loads(text)
    return json.dumps(written.get(found.json_name, _zero(response, found)), ensure_ascii=False).encode()


# --- the client's side


def build_request(route: Route, request: Message[Any], *, proto_names: bool = False) -> tuple[str, bytes | None]:
    """Return path with query, and the body (None where there is none). Raises `Error` for what the route cannot carry."""
    try:
        tree: Any = json.loads(write_json(request, proto_names=proto_names))
        path = _path(route, request, tree, proto_names=proto_names)
        if route.body == ALL:
            return path, _json(tree)
        body: bytes | None = None
        if route.body:
            (found,) = fields_at(request.desc(), route.body)
            body = _json(tree.pop(_name(found, proto_names=proto_names), _zero(request, found)))
        query = _query(route, request, tree, proto_names=proto_names)
    except UNWRITABLE as error:
        raise misfilled(request) from error
    if left := _left(tree):
        text = f"'{route}' cannot carry the field '{left}' in its path or query: leave it out, or give the route a body."
        raise Error(Code.INVALID_ARGUMENT, text)
    return f"{path}?{query}" if query else path, body


def _path(route: Route, request: Message[Any], tree: Any, *, proto_names: bool) -> str:
    def value_of(name: str) -> str:
        chain = fields_at(request.desc(), name)
        value = _value(request, chain)
        _drop(tree, [_name(link, proto_names=proto_names) for link in chain])
        return "" if value is None else write_text(kind_of(chain[-1]), value)

    try:
        return route.template.build(value_of)
    except LookupError as error:
        name = str(error.args[0])
        text = f"The field '{name}' does not fit into '{route}': give it a value of that form, without '.' and '..' for a segment."
        raise Error(Code.INVALID_ARGUMENT, text) from None


def _query(route: Route, request: Message[Any], tree: Any, *, proto_names: bool) -> str:
    """Return the fields that are set and left over as parameters; takes them out of the tree."""
    pairs: list[str] = []
    for chain, value in _leaves(request, []):
        names = [_name(link, proto_names=proto_names) for link in chain]
        if chain[0].name == route.body or not _drop(tree, names):
            continue
        kind = kind_of(chain[-1])
        values = cast("list[Any]", value) if isinstance(chain[-1].value, DescFieldValueList) else [value]
        pairs.extend(f"{'.'.join(names)}={quote(write_text(kind, each), safe='')}" for each in values)
    return "&".join(pairs)


def _leaves(message: Message[Any], outer: list[DescField]) -> Iterator[tuple[list[DescField], Any]]:
    for found in message.desc().fields:
        if found not in message or len(outer) >= _MOST_LEVELS:
            continue
        value: Any = message[found]
        if is_leaf(found) or is_leaf_list(found):
            yield [*outer, found], value
        elif inner_message(found) is not None:
            yield from _leaves(value, [*outer, found])


def read_answer(route: Route, cls: type[Message[Any]], body: bytes) -> Any:
    """Return the message that an answer holds. Raises `Error(INTERNAL)`."""
    if not body:
        return cls()
    if not route.response_body:
        return read_json(body, cls, Code.INTERNAL)
    (found,) = fields_at(cls.desc(), route.response_body)
    return _wrapped(cls, found, body, Code.INTERNAL)


# --- trees of JSON


def _name(found: DescField, *, proto_names: bool) -> str:
    return found.name if proto_names else found.json_name


def _value(message: Any, chain: Sequence[DescField]) -> Any:
    for link in chain:
        if message is None or (link not in message and link.value.__class__ is DescFieldValueMessage):
            return None
        message = message[link]
    return message


def _drop(tree: Any, names: Sequence[str]) -> bool:
    """Take a value out of a tree; tell whether it was there."""
    for name in names[:-1]:
        tree = cast("dict[str, Any]", tree).get(name) if isinstance(tree, dict) else None
    return isinstance(tree, dict) and cast("dict[str, Any]", tree).pop(names[-1], None) is not None


def _left(tree: dict[str, Any]) -> str:
    """Return the path of a value that is still there."""
    for name, value in tree.items():
        if not isinstance(value, dict):
            return name
        if inner := _left(cast("dict[str, Any]", value)):
            return f"{name}.{inner}"
    return ""


def _zero(message: Message[Any], found: DescField) -> Any:
    """Return what JSON writes for a field that is absent."""
    if isinstance(found.value, DescFieldValueList):
        return []
    if isinstance(found.value, DescFieldValueMap | DescFieldValueMessage):
        return {} if isinstance(found.value, DescFieldValueMap) else None
    zeros: dict[str, Any] = json.loads(type(message)().to_json(always_emit_implicit=True))
    return zeros.get(found.json_name)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
