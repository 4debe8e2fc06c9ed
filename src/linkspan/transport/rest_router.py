"""Finds the route of a path: segment by segment, the narrower first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from linkspan.errors import Code, Error
from linkspan.template import ONE, REST
from linkspan.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from linkspan.routes import Route
    from linkspan.transport.endpoint import StreamEndpoint

__all__ = ["Match", "Router"]

_MOST_SEGMENTS: Final = 128


@dataclass(frozen=True, slots=True)
class Match:
    """What a path leads to: an endpoint by one of its routes, with the texts of the variables; or the methods that are allowed there."""

    endpoint: Endpoint | None
    route: Route | None
    path: dict[str, str]
    allowed: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    """What may follow after some segments; `ends` maps verb and method to what ends here, `rest` likewise for `**`."""

    literals: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    one: _Node | None = None
    ends: dict[tuple[str, str], tuple[Endpoint, Route]] = field(default_factory=dict[tuple[str, str], "tuple[Endpoint, Route]"])
    rest: dict[tuple[str, str], tuple[Endpoint, Route]] = field(default_factory=dict[tuple[str, str], "tuple[Endpoint, Route]"])


class Router:
    """All routes of a server's endpoints; they do not overlap, or one of them is the narrower."""

    def __init__(self, endpoints: Iterable[Endpoint | StreamEndpoint]) -> None:
        self._root = _Node()
        self._empty = True
        for endpoint in endpoints:
            if not isinstance(endpoint, Endpoint):
                continue  # a stream
            for route in endpoint.operation.routes:
                self._add(endpoint, route)
                self._empty = False

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return not self._empty

    def find(self, method: str, raw_path: str) -> Match | None:
        """Return where a percent-encoded path leads, None if nowhere. Raises `Error` for what is no UTF-8."""
        segments = raw_path.split("/")[1:]
        if self._empty or not raw_path.startswith("/") or len(segments) > _MOST_SEGMENTS:
            return None
        wanted = "GET" if method == "HEAD" else method
        allowed: dict[str, None] = {}
        try:
            for ends, verb, own in self._ends(segments):
                found = ends.get((verb, wanted))
                if found is not None:
                    endpoint, route = found
                    path = {variable.field: variable.read(own) for variable in route.template.variables}
                    return Match(endpoint, route, path, ())
                allowed.update((each, None) for its_verb, each in ends if its_verb == verb)
        except UnicodeDecodeError:
            raise Error(Code.INVALID_ARGUMENT, "Reading the path failed: percent-encode it in UTF-8.") from None
        if not allowed:
            return None
        more = {"GET": ("HEAD",)}
        return Match(None, None, {}, tuple(sorted({*allowed, "OPTIONS", *(each for name in allowed for each in more.get(name, ()))})))

    def _ends(self, segments: list[str]) -> Iterator[tuple[dict[tuple[str, str], tuple[Endpoint, Route]], str, list[str]]]:
        head, colon, verb = segments[-1].rpartition(":")
        if colon and verb:
            own = [*segments[:-1], head]
            for ends in _walk(self._root, own, 0):
                yield ends, verb, own
        for ends in _walk(self._root, segments, 0):
            yield ends, "", segments

    def _add(self, endpoint: Endpoint, route: Route) -> None:
        node, template = self._root, route.template
        for segment in template.segments:
            if segment == REST:
                node.rest[template.verb, route.method] = (endpoint, route)
                return
            if segment == ONE:
                node.one = node = node.one or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        node.ends[template.verb, route.method] = (endpoint, route)


def _walk(node: _Node, segments: list[str], at: int) -> Iterator[dict[tuple[str, str], tuple[Endpoint, Route]]]:
    """Yield what the segments may end at, the narrowest first: a literal before `*` before `**`."""
    if at == len(segments):
        yield node.ends
    else:
        segment = segments[at]
        literal = node.literals.get(unquote(segment, errors="strict") if "%" in segment else segment)
        if literal is not None:
            yield from _walk(literal, segments, at + 1)
        if node.one is not None and segment:
            yield from _walk(node.one, segments, at + 1)
    if node.rest:
        yield node.rest
