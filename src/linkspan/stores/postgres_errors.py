"""What a PostgreSQL failure means to the core: a code and a sentence without values."""

from __future__ import annotations

from typing import Final

import asyncpg

from linkspan.errors import Code, Error

__all__ = ["coded", "is_collision", "is_lost"]

# Conditions that pass by themselves or by an operator's hand, by SQLSTATE or its class (PostgreSQL documentation, appendix A).
_UNAVAILABLE: Final = {
    "08": "the connection failed: look at the server and the network",
    "25006": "it takes no writes, it may be a standby: connect to the primary",
    "28": "it refused the credentials: look at user, password and pg_hba.conf",
    "3D000": "the database is not there: create it",
    "40": "it met another transaction: try again",
    "53": "it is out of resources: free some, or allow more connections",
    "55P03": "a lock could not be had in time: wait, or end the transaction that holds it",
    "57": "it stopped the statement or is shutting down: try again",
    "58": "the server could not read or write: look at its disk",
    "25P03": "the transaction was idle for too long: try again",
    "XX001": "it met damaged data: restore it from a backup",
}
_FINAL: Final = {
    "25006": (Code.INVALID_ARGUMENT, "wants to write where only reading is possible: write in the handler's transaction"),
    "42501": (Code.PERMISSION_DENIED, "needs a right that the role has not: grant it"),
    "54": (Code.INVALID_ARGUMENT, "is too big: keep large values outside the database"),
}
_ENDED: Final = {"57P01", "57P02", "57P03", "57P05", "25P03"}
_EXISTS: Final = {"23505", "23P01"}
# Their text names only the schema.
_SAYS: Final = {"42P01", "42703", "42883", "42P02", "42804", "42P07", "42701", "3F000"}


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection is gone, so that what was under way is undone, or unknown if it was a commit."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate[:2] == "08" or error.sqlstate in _ENDED
    if isinstance(error, asyncpg.InterfaceError):
        return "connection" in str(error) and ("closed" in str(error) or "released" in str(error))
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def is_collision(error: BaseException) -> bool:
    """Tell whether another transaction was in the way: the same again may well succeed."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in {"40001", "40P01", "55P03"}


def coded(name: str, error: BaseException, *, reading: bool = False) -> Error:
    """Return the `Error` for a failure in the store called `name`. The text names tables and columns, never values."""
    if isinstance(error, Error):
        return error
    if is_lost(error):
        return Error(Code.UNAVAILABLE, f"The store '{name}' is not available: {_UNAVAILABLE['08']}.")
    if not isinstance(error, asyncpg.PostgresError):
        return Error(Code.INTERNAL, f"A statement of store '{name}' was refused ({type(error).__name__}): {_refused(error)}")
    state = error.sqlstate
    if not (reading and state == "25006"):
        why = _UNAVAILABLE.get(state) or _UNAVAILABLE.get(state[:2])
        if why is not None:
            return Error(Code.UNAVAILABLE, f"The store '{name}' is not available: {why}.")
    code, sentence = _FINAL.get(state) or _FINAL.get(state[:2]) or (Code.INTERNAL, f"failed: {_readable(error)}")
    if state[:2] == "23":
        code = Code.ALREADY_EXISTS if state in _EXISTS else Code.FAILED_PRECONDITION
        sentence = f"broke a constraint: {_constraint(error)}"
    return Error(code, f"A statement of store '{name}' {sentence}.")


def _constraint(error: asyncpg.PostgresError) -> str:
    """Name the constraint, else the column, and the table."""
    what = getattr(error, "constraint_name", None) or getattr(error, "column_name", None) or type(error).__name__
    return f"{what} of {getattr(error, 'table_name', None) or 'a table'} ({type(error).__name__})"


def _refused(error: BaseException) -> str:
    """Say what kind of argument was refused; the driver's own text may show values."""
    if isinstance(error, asyncpg.InterfaceError | UnicodeError | OverflowError | TypeError | ValueError):
        return "give one value of the column's type for each parameter, and one statement at a time."
    return "see the traceback."


def _readable(error: asyncpg.PostgresError) -> str:
    """Return the server's own text where it names only the schema; what it quotes from the statement might be a value."""
    if error.sqlstate in _SAYS:
        return str(error).partition("\n")[0]
    position = getattr(error, "position", None)
    return f"{type(error).__name__}{f' at character {position}' if position else ''}"
