"""`linkspan dead edit`: put a corrected copy in a dead letter's place."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from linkspan.cli.dead_target import (
    Number,
    Service,
    Target,
    Who,
    Why,
    content_class,
    decoded,
    found_letter,
    is_dead,
    one_store,
    the_service,
)
from linkspan.cli.target import load_app
from linkspan.errors import Error, SetupError
from linkspan.letters.correction import changed, copy_headers, replace_letter, values_of
from linkspan.message import redacted
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter

__all__ = ["edit"]


def edit(  # noqa: PLR0913 - options of a command
    target: Target,
    number: Number,
    why: Why,
    service: Service = "",
    *,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A field and its new value.", metavar="FIELD=VALUE")] = None,
    source: Annotated[str, typer.Option("--from", help="A JSON file of fields and new values, - for stdin.", metavar="FILE")] = "",
    who: Who,
) -> None:
    """Correct a dead letter: a copy with a new id takes its place in its key's order, checked by the contract; redrive it then."""
    app = load_app(target)
    name = the_service(app, service)
    if not settings and not source:
        raise SetupError("Say what to change: --set field=value, or --from file.json.")
    given = _given(source) if source else {}
    new_id, content = asyncio.run(_edited(app, name, number, (settings or [], given), (who, why)))
    typer.echo(f"Message {number} is {new_id} now: {content}")
    typer.echo(f"Try it again: linkspan dead redrive {target} {number} --service {name} --why '...'")


def _given(source: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        found: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise SetupError(f"The file '{source}' cannot be read as JSON ({type(error).__name__}): write an object of fields.") from None
    if not isinstance(found, dict):
        raise SetupError(f"The file '{source}' holds no JSON object: write an object of fields and their new values.")
    return cast("dict[str, Any]", found)


async def _edited(app: App, service: str, number: int, wanted: tuple[list[str], dict[str, Any]], audit: tuple[str, str]) -> tuple[str, str]:
    runtime = system()
    async with one_store(app, service) as store:
        letter = await found_letter(store, service, number)
        if not is_dead(letter, service):
            raise SetupError(f"Message {number} of service '{service}' is no dead letter: only dead letters can be edited.")
        new = _corrected(app, letter, *wanted)
        new_id = runtime.ids.new()
        copy = (new_id, copy_headers(letter, new_id), new.to_binary())
        if not await replace_letter(store, letter, copy, who=audit[0], why=audit[1], at=runtime.clock.now()):
            raise SetupError(f"Message {number} of service '{service}' changed meanwhile: look at it again.")
    return new_id, redacted(new)


def _corrected(app: App, letter: Letter, settings: list[str], given: dict[str, Any]) -> Any:
    cls = content_class(app, letter)
    if cls is None:
        raise SetupError(
            f"Service '{letter.topic.partition(':')[0]}' has no handler for '{letter.type}', so nothing to check by: deploy one."
        )
    try:
        old = decoded(cls, letter)
    except Error:
        old = None
    try:
        return changed(cls, old, {**given, **values_of(cls, settings)}, key=letter.key)
    except Error as error:
        raise SetupError(error.message) from None
