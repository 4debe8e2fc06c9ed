"""Whether validation rules let less through than before (`buf.validate`, as JSON shows it)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["narrowed"]

_COUNTS: Final = {"minLen", "minBytes", "minItems", "minPairs"}
_LOWEST: Final = {"gt", "gte", *_COUNTS}
_HIGHEST: Final = {"lt", "lte", "maxLen", "maxBytes", "maxItems", "maxPairs"}
_EXCLUSIVE: Final = {"gt", "lt"}
_NO_RULES: Final = {"example", "definedOnly.example"}
_LETS_ALL: Final = "IGNORE_ALWAYS"

Bound = tuple[float, bool]
"""A limit, and whether the limit itself is outside."""


def narrowed(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was and what is for each rule by which less is valid now.

    What cannot be compared, such as two patterns, counts as narrower when it has changed.
    """
    if now.get("ignore") == _LETS_ALL:
        return
    if was.get("ignore") == _LETS_ALL:
        was = {}
    old, new = dict(_flat(was)), dict(_flat(now))
    yield from _bounds(old, new)
    for path in sorted(new):
        name = path.rpartition(".")[2]
        if name in _LOWEST | _HIGHEST or name in _NO_RULES or old.get(path) == new[path]:
            continue
        if not _is_wider(name, old.get(path), new[path]):
            yield _text(path, old.get(path)), _text(path, new[path])
    for path in sorted(old):
        if path.rpartition(".")[2] == "ignore" and path not in new:
            yield _text(path, old[path]), _text(path, None)


def _flat(rules: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in rules.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{path}{name}.")
        else:
            yield path + name, value


def _is_wider(name: str, was: Any, now: Any) -> bool:
    if now is False or (name == "notIn" and was is not None and set(now) <= set(was)):
        return True
    if name == "in" and was is not None:
        return set(was) <= set(now)
    if name in {"cel", "celExpression"} and was is not None:
        return all(rule in was for rule in now)
    return name == "ignore"


def _text(path: str, value: Any) -> str:
    return f"no {path}" if value is None or value is False else f"{path} = {value}"


# --- bounds ----------------------------------------------------------------------------------------


def _bounds(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Compare limits by what they are about: `gt` and `gte` of a path are one lower limit."""
    for names, sign in ((_LOWEST, 1), (_HIGHEST, -1)):
        old, new = _limits(was, names, sign), _limits(now, names, sign)
        for about, (bound, text) in sorted(new.items()):
            before, old_text = old.get(about, (None, f"no {text.partition(' ')[0]}"))
            if before is None or bound > before:
                yield old_text, text


def _limits(rules: Mapping[str, Any], names: set[str], sign: int) -> dict[str, tuple[Bound, str]]:
    found: dict[str, tuple[Bound, str]] = {}
    for path, value in rules.items():
        scope, _, name = path.rpartition(".")
        if name in names and not (name in _COUNTS and _number(value) == 0):
            about = f"{scope}.{'value' if name in {'gt', 'gte', 'lt', 'lte'} else name}"
            found[about] = ((sign * _number(value), name in _EXCLUSIVE), f"{path} = {value}")
    return found


def _number(value: Any) -> float:
    """Read a limit: a number, a 64-bit number as text, a duration in seconds, or a moment by its digits."""
    if isinstance(value, int | float):
        return value
    text = str(value)
    match = re.fullmatch(r"(-?[\d.]+)s?", text)
    return float(match[1]) if match else float(re.sub(r"\D", "", text.partition(".")[0]) or 0)
