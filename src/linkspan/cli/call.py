"""`linkspan call`: ask an operation from the command line, JSON in and JSON out."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from linkspan.cli.folder import found_target, read_session
from linkspan.cli.operations import callable_operations, find_operation, operations_of
from linkspan.cli.sample import sample_json
from linkspan.cli.target import load_app, stand_here
from linkspan.errors import Error, SetupError
from linkspan.message import decode_json, type_name
from linkspan.runtime import system
from linkspan.trace import trace_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from linkspan.app import App
    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.operation import Operation

__all__ = ["Asked", "ask", "prepare"]

TIMEOUT = 30.0
"""Seconds for an answer, unless told otherwise."""
DEV_TIMEOUT = 86_400.0
"""Seconds for an answer of `linkspan dev`, where somebody may stand at a breakpoint."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, ready to be made: one request, or those of a stream; `headers` are the caller's own."""

    operation: Operation[Any, Any]
    requests: Sequence[Any]
    address: str
    timeout: float
    key: str
    headers: dict[str, str]


def prepare(operation: str, text: str, *, app: str, address: str, timeout: float | None, key: str, headers: Sequence[str]) -> Asked:  # noqa: PLR0913 - the command's options
    """Find the operation, read its request and where to send it. Raises `SetupError`."""
    loaded, known = _known(app)
    found = find_operation(known, operation)
    if timeout is not None and not 0 < timeout < float("inf"):
        raise SetupError(f"The timeout '{timeout:g}' cannot be waited: give seconds, more than 0.")
    where, limit = _where(loaded, found, address)
    return Asked(found, _requests(found, text), where, timeout or limit, key, dict(_header(line) for line in headers))


def _known(target: str) -> tuple[App | None, list[Operation[Any, Any]]]:
    """Return the app, if the target names one, and the operations that it or its module knows."""
    target = target or found_target(Path.cwd())
    if ":" in target:
        app = load_app(target)
        return app, [*operations_of(app), *callable_operations(sys.modules[target.partition(":")[0]])]
    stand_here()
    try:
        return None, callable_operations(importlib.import_module(target))
    except ModuleNotFoundError as error:
        if error.name != target:
            raise
        raise SetupError(f"There is no module '{target}' here: start in the folder that holds it.") from error


def _where(app: App | None, operation: Operation[Any, Any], address: str) -> tuple[str, float]:
    """Return the address of an operation, and how long it may take to answer."""
    if address:
        from linkspan.client import check_addresses  # noqa: PLC0415 - HTTP loads where it is used

        check_addresses({"*": address})
        return address, TIMEOUT
    if app is None:
        raise SetupError(f"Nothing says where '{operation.full_name}' answers: give --address http://host:port.")
    session = read_session(app.data)
    served = {each.full_name for each in operations_of(app)}
    if session is not None and operation.full_name in served:
        return session.address, DEV_TIMEOUT
    found = app.known_address(operation)
    if not found:
        raise SetupError(f"Nothing says where '{operation.full_name}' answers: start the app, or give --address http://host:port.")
    return found, TIMEOUT


def _requests(operation: Operation[Any, Any], text: str) -> list[Any]:
    """Read the request from the argument, from `@file` or, for `-`, from standard input; a stream of them from an array or from lines."""
    cls: Any = operation.request
    try:
        given = sys.stdin.read() if text == "-" else Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        found = _values(given) if operation.client_streaming else [json.loads(given)]
    except OSError as error:
        raise SetupError(f"The request '{text}' cannot be read ({error.strerror}): name a file that is there.") from error
    except ValueError as error:
        place = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SetupError(f"The request is no JSON ({_reason(error)}{place}): write it like '{sample_json(cls)}'.") from error
    return [_request(cls, fields) for fields in found]


def _values(text: str) -> list[Any]:
    """Read a JSON array, or one value a line."""
    if text.lstrip().startswith("["):
        found: list[Any] = json.loads(text)
        return found
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _request(cls: Any, fields: Any) -> Any:
    _check_fields(cls, fields)
    try:
        return decode_json(cls, json.dumps(fields), ignore_unknown_fields=False)
    except Error as error:
        raise SetupError(f"The request is no {type_name(cls)}: write it like '{sample_json(cls)}'.") from error


def _reason(error: ValueError) -> str:
    return error.msg.lower() if isinstance(error, json.JSONDecodeError) else "not UTF-8"


def _check_fields(cls: Any, fields: Any) -> None:
    if not isinstance(fields, dict):
        raise SetupError(f"The request is no JSON object: write it like '{sample_json(cls)}'.")
    known = [name for field in cls.desc().fields for name in (field.json_name, field.name)]
    unknown = [name for name in cast("dict[str, Any]", fields) if name not in known]
    if unknown:
        names = ", ".join(dict.fromkeys(field.json_name for field in cls.desc().fields)) or "no fields"
        raise SetupError(f"'{type_name(cls)}' has no field '{unknown[0]}': it has {names}.")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise SetupError(f"The header '{name}' has no value: write --header 'name: value'.")
    return name.strip().lower(), value.strip()


class _Own:
    """Adds the caller's headers to the call, in a trace of its own that can be told."""

    def __init__(self, headers: Mapping[str, str], trace: str) -> None:
        self._headers = headers
        self._trace = trace

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        ctx.headers.update(self._headers)
        ctx.trace = self._trace
        return await call_next(ctx, request)


async def ask(asked: Asked, told: Callable[[str], object]) -> str:
    """Call, tell each answer as JSON, and return the trace id. Raises `Error`."""
    from linkspan.client import Client  # noqa: PLC0415 - HTTP loads where it is used
    from linkspan.middleware import Deadline  # noqa: PLC0415 - as above

    trace = trace_of(system().ids.new())
    layers = (_Own(asked.headers, trace), Deadline())
    operation: Any = asked.operation
    request: Any = _each(asked.requests) if operation.client_streaming else asked.requests[0]
    async with Client(addresses=asked.address, name="command-line", middleware=layers) as client:
        key = asked.key or None
        if operation.server_streaming:
            async for answer in client.stream(operation, request, timeout=asked.timeout, key=key):
                told(answer.to_json(always_emit_implicit=True))
        else:
            answer = await client.call(operation, request, timeout=asked.timeout, key=key)
            told(answer.to_json(always_emit_implicit=True))
    return trace[3:35]


async def _each(requests: Sequence[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request
