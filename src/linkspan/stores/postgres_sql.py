"""SQL text: our named queries and scripts, and users' statements with `?` for parameters as PostgreSQL wants them, `$1`."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["QUERIES", "own_scripts", "statements_of", "table_of", "translated"]

_SQL = files("linkspan.stores") / "sql" / "postgres"
_REMEMBERED = 1024

# Quoted text, identifiers, dollar quotes and comments (PostgreSQL documentation, chapter 4.1): what is in them is no parameter and ends
# no statement. Block comments nest there; here to a depth of three.
_NESTED = r"/\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*(?:[^*]|\*(?!/))*\*/)*\*/)*\*/"
_OPAQUE = rf"""(?:\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|{_NESTED}|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$)"""
_PARAMETER = re.compile(rf"{_OPAQUE}|(?P<double>\?\?)|(?P<mark>\?)|(?P<number>\$[0-9]+)", re.DOTALL)
_PIECE = re.compile(rf"{_OPAQUE}|(?P<end>;)|(?P<word>\w+)", re.DOTALL)

# What belongs to the store: transactions, and settings that would outlive the statement on a connection that is used again.
_REFUSED = {"abort", "begin", "commit", "discard", "end", "listen", "prepare"} | {
    "release",
    "reset",
    "rollback",
    "savepoint",
    "start",
    "unlisten",
}


def _load(text: str) -> dict[str, str]:
    """Read named queries."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


QUERIES: Mapping[str, str] = _load((_SQL / "queries.sql").read_text("utf-8"))


def own_scripts() -> list[tuple[int, str]]:
    """Return our numbered scripts in order."""
    names = sorted(entry.name for entry in _SQL.iterdir() if re.match(r"\d{4}_", entry.name))
    return [(int(name[:4]), (_SQL / name).read_text("utf-8")) for name in names]


@lru_cache(maxsize=_REMEMBERED)
def translated(sql: str) -> str:
    """Return one statement of the user with `$1`, `$2`, ... for its question marks.

    A statement that has `$1` itself stays as it is; `??` stands for the operator `?`. Raises `Error(INVALID_ARGUMENT)` for what
    belongs to the store: transactions, and settings that would outlast the transaction.
    """
    words = [match["word"].lower() for match in _PIECE.finditer(sql) if match["word"]][:2]
    if words and (words[0] in _REFUSED or (words[0] == "set" and words[1:] != ["local"])):
        raise Error(Code.INVALID_ARGUMENT, f"The statement '{words[0]}' is not allowed: leave transactions and settings to the store.")
    found = list(_PARAMETER.finditer(sql))
    if any(match["number"] for match in found):
        return sql
    count, parts, last = 0, list[str](), 0
    for match in found:
        if match["mark"] or match["double"]:
            count += bool(match["mark"])
            parts += [sql[last : match.start()], f"${count}" if match["mark"] else "?"]
            last = match.end()
    return "".join([*parts, sql[last:]])


def statements_of(script: str) -> Iterator[str]:
    """Cut a script into statements at semicolons outside of quotes, comments and `begin atomic ... end` bodies."""
    start, depth, words = 0, 0, list[str]()
    for match in _PIECE.finditer(script):
        if match["word"]:
            words.append(match["word"].lower())
            if words[-2:] == ["begin", "atomic"] or (depth and words[-1] == "case"):
                depth += 1
            elif depth and words[-1] == "end":
                depth -= 1
        elif match["end"] and not depth:
            if words:
                yield script[start : match.end()].strip()
            start, words = match.end(), []
    if words:
        yield script[start:].strip()


_CHANGE = re.compile(
    r"\s*(?:insert\s+into|update|delete\s+from)\s+(?P<table>\w+(?:\.\w+)?)(?:\s+as\s+(?P<alias>\w+))?(?=[\s(])", re.IGNORECASE
)
_MORE = {
    "select",
    "table",
    "with",
    "returning",
    "from",
    "using",
    "join",
    "exists",
    "execute",
    "call",
    "only",
    "cascade",
    "currval",
    "lastval",
}
_CALLED = re.compile(r"(\w+)\s*\(")
# What may stand before a parenthesis in a statement that looks at nothing but its own row: words, and functions that read no table.
_WORDS = """
values conflict set where and or not in do on any all case when then else between is null excluded key array row
abs coalesce floor ceil greatest least length lower now nullif round to_timestamp trim upper date_trunc cast
make_interval clock_timestamp jsonb_build_object json_build_object jsonb_set concat substr substring encode decode md5
numeric decimal varchar char timestamptz timestamp interval
"""
_HARMLESS = frozenset(_WORDS.split())


@lru_cache(maxsize=_REMEMBERED)
def table_of(sql: str) -> str:
    """Return the one table that a statement reads and changes, as it is written, '' where it may touch others or gives an answer."""
    match = _CHANGE.match(sql)
    if match is None or '"' in sql:
        return ""
    rest = _PIECE.sub(lambda piece: piece[0] if piece["word"] else " ", sql[match.end() :])
    if _MORE & {word.lower() for word in re.findall(r"\w+", rest)}:
        return ""
    known = _HARMLESS | {match["table"].lower(), (match["alias"] or "").lower()}
    return match["table"] if all(called[1].lower() in known for called in _CALLED.finditer(rest)) else ""
