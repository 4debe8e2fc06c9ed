"""What an SQLite failure means to the core: a code and a sentence without values."""

from __future__ import annotations

import sqlite3

from linkspan.errors import Code, Error

__all__ = ["Absent", "coded"]


class Absent(Exception):  # noqa: N818 - a state of the file, carried to where the group is failed as a whole
    """The file cannot be written now, whatever the unit: no unit is to blame, so none is tried alone."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


# Primary result codes (https://sqlite.org/rescode.html) that pass by themselves or by an operator's hand.
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "it is locked by another connection: wait, or end that transaction",
    sqlite3.SQLITE_LOCKED: "a table is locked: wait, or end that transaction",
    sqlite3.SQLITE_FULL: "the disk or the page limit is full: free some space",
    sqlite3.SQLITE_IOERR: "reading or writing failed: look at the disk",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: look at its directory and permissions",
    sqlite3.SQLITE_NOMEM: "memory ran out: free some",
    sqlite3.SQLITE_READONLY: "the file is read-only: look at its permissions and mount",
    sqlite3.SQLITE_PROTOCOL: "its lock could not be had: try again",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted: try again",
}
_EXISTS = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_FINAL = {
    sqlite3.SQLITE_READONLY: (Code.INVALID_ARGUMENT, "wants to write where only reading is possible: write in the handler's transaction"),
    sqlite3.SQLITE_AUTH: (Code.INVALID_ARGUMENT, "is not allowed: leave transactions, files and settings to the store"),
    sqlite3.SQLITE_TOOBIG: (Code.INVALID_ARGUMENT, "has a value that is too big: keep it outside the database"),
    sqlite3.SQLITE_CORRUPT: (Code.DATA_LOSS, "met a damaged file: restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (Code.DATA_LOSS, "met a file that is no database: restore it from a backup"),
}


def coded(name: str, error: BaseException, *, reading: bool = False) -> Error:
    """Return the `Error` for a failure in the store called `name`. The text names tables and columns, never values."""
    if isinstance(error, Absent):
        return error.error
    if isinstance(error, Error):
        return error
    if isinstance(error, OSError):
        return Error(Code.UNAVAILABLE, f"The directory of store '{name}' cannot be used ({type(error).__name__}): look at its permissions.")
    found = getattr(error, "sqlite_errorcode", None)
    if not isinstance(found, int):
        return Error(Code.INTERNAL, f"A statement of store '{name}' was refused ({type(error).__name__}): {_refused(error)}")
    if found & 0xFF in _UNAVAILABLE and not (reading and found & 0xFF == sqlite3.SQLITE_READONLY):
        return Error(Code.UNAVAILABLE, f"The store '{name}' is not available: {_UNAVAILABLE[found & 0xFF]}.")
    code, sentence = _FINAL.get(found & 0xFF, (Code.INTERNAL, f"failed: {_readable(error)}"))
    if found & 0xFF == sqlite3.SQLITE_CONSTRAINT:
        code, sentence = Code.ALREADY_EXISTS if found in _EXISTS else Code.FAILED_PRECONDITION, f"broke a constraint: {error}"
    return Error(code, f"A statement of store '{name}' {sentence}.")


def _refused(error: BaseException) -> str:
    """Say what kind of argument was refused; the driver's own text may show values."""
    if isinstance(error, sqlite3.ProgrammingError):
        return "give one supported value for each parameter, and one statement at a time."
    if isinstance(error, OverflowError):
        return "integers have at most 64 bits."
    if isinstance(error, UnicodeError):
        return "text must be valid Unicode."
    return "see the traceback."


def _readable(error: BaseException) -> str:
    """Return SQLite's own text where it names only the schema; what it quotes from the statement might be a value."""
    text = str(error)
    return "syntax error" if '"' in text or "'" in text else text
