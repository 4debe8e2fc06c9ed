"""Path templates of `google.api.http`: `/v1/{name=shelves/*/books/*}:cancel` (google/api/http.proto, "Path template syntax")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PathTemplate", "Variable", "relation"]

ONE: Final = "*"
REST: Final = "**"

_VARIABLE: Final = re.compile(r"\{([^{}=]*)(?:=([^{}]*))?\}")
_FIELD_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()+,;=@-]+")
_SLASH: Final = re.compile("(%2[Ff])")


@dataclass(frozen=True, slots=True)
class Variable:
    """A field that is filled from the path: the segments from `start` up to `end` (None: all that follow)."""

    field: str
    start: int
    end: int | None
    plain: bool

    def read(self, segments: Sequence[str]) -> str:
        """Return the value that these segments, as they stand in the URL, hold. Raises `UnicodeDecodeError`."""
        own = segments[self.start : self.end]
        if self.plain:
            return unquote(own[0], errors="strict")
        # A slash inside of a segment stays encoded, or the value could not be told apart.
        pieces = _SLASH.split("/".join(own))
        return "".join(piece if _SLASH.fullmatch(piece) else unquote(piece, errors="strict") for piece in pieces)


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A template taken apart: `segments` are literals, `*` (one segment) and, at the end, `**` (any number)."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    @classmethod
    def parse(cls, text: str) -> PathTemplate:
        """Take a template apart. Raises `ValueError` with what is wrong about it."""
        if not text.startswith("/"):
            raise ValueError("whose path does not begin with '/'")
        body, verb = _split_verb(text[1:])
        if verb and not _LITERAL.fullmatch(verb):
            raise ValueError(f"whose verb ':{verb}' is no plain word")
        segments: list[str] = []
        variables: list[Variable] = []
        for part in _parts(body):
            found = _VARIABLE.fullmatch(part)
            if found is None:
                segments.append(_segment(part))
                continue
            field, pattern = found[1], found[2] or ONE
            own = [_segment(piece) for piece in pattern.split("/")]
            if not _FIELD_PATH.fullmatch(field):
                raise ValueError(f"whose variable '{{{field}}}' names no field")
            end = None if own[-1] == REST else len(segments) + len(own)
            variables.append(Variable(field, len(segments), end, own == [ONE]))
            segments.extend(own)
        if REST in segments[:-1]:
            raise ValueError("where '**' is not the last segment")
        return cls(text, tuple(segments), tuple(variables), verb)

    def build(self, value_of: Callable[[str], str]) -> str:
        """Return the path for the values of its variables. Raises `LookupError` with the name of a field whose value does not fit."""
        pieces = list(self.segments)
        if any(not self._covered(number) for number, piece in enumerate(pieces) if piece in {ONE, REST}):
            raise LookupError(ONE)
        values: list[list[str]] = []
        for variable in self.variables:
            value = value_of(variable.field)
            values.append([value] if variable.plain else value.split("/"))
            if not _fits(values[-1], self.segments[variable.start : variable.end]):
                raise LookupError(variable.field)
        for variable, parts in reversed([*zip(self.variables, values, strict=True)]):
            pieces[variable.start : variable.end] = [quote(part, safe="") for part in parts]
        return "/" + "/".join(pieces) + (f":{self.verb}" if self.verb else "")

    def _covered(self, number: int) -> bool:
        return any(v.start <= number and (v.end is None or number < v.end) for v in self.variables)


def relation(one: PathTemplate, other: PathTemplate) -> Literal["apart", "same", "narrower", "wider", "crossing"]:
    """Tell how the paths that two templates match relate; `narrower` says that the first's are some of the second's."""
    narrower = wider = False
    if one.verb != other.verb:
        if one.verb and other.verb:
            return "apart"
        bare = other if one.verb else one  # it takes the other's verb for a part of its last segment, if that is no literal
        if bare.segments[-1] not in {ONE, REST}:
            return "apart"
        narrower, wider = bool(one.verb), bool(other.verb)
    for number in range(max(len(one.segments), len(other.segments))):
        mine, its = one.segments[number : number + 1], other.segments[number : number + 1]
        if mine == its:
            continue
        if REST in mine or REST in its:
            narrower, wider = narrower or REST in its, wider or REST in mine
            break
        if not mine or not its or (mine[0] != ONE and its[0] != ONE):
            return "apart"
        narrower, wider = narrower or its[0] == ONE, wider or mine[0] == ONE
    if narrower and wider:
        return "crossing"
    return "narrower" if narrower else "wider" if wider else "same"


def _split_verb(text: str) -> tuple[str, str]:
    last = max(text.rfind("/"), text.rfind("}"), 0)
    head, colon, verb = text[last:].partition(":")
    if colon and not verb:
        raise ValueError("whose verb after ':' is empty")
    return text[:last] + head, verb


def _parts(body: str) -> list[str]:
    """Split at the slashes outside of braces."""
    parts = re.split(r"/(?![^{]*\})", body)
    for part in parts:
        if not part:
            raise ValueError("with an empty segment")
        if ("{" in part or "}" in part) and not _VARIABLE.fullmatch(part):
            raise ValueError(f"whose segment '{part}' is not one whole variable")
    return parts


def _segment(text: str) -> str:
    if text in {ONE, REST} or _LITERAL.fullmatch(text):
        return text
    raise ValueError(f"whose segment '{text}' is neither a plain word nor '*', '**' or a variable")


def _fits(parts: list[str], pattern: Sequence[str]) -> bool:
    """Tell whether a value matches its part of the template; `.` and `..` would be taken for a way up."""
    if any(part in {"", ".", ".."} for part in parts):
        return False
    if pattern[-1] == REST:
        head = pattern[:-1]
        return len(parts) >= max(1, len(head)) and all(piece in {ONE, part} for piece, part in zip(head, parts, strict=False))
    return len(parts) == len(pattern) and all(piece in {ONE, part} for piece, part in zip(pattern, parts, strict=True))
