"""What the commands of `linkspan dead` share: their options, the service that is meant, and who sits at the keyboard."""

from __future__ import annotations

import getpass
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan import envelope as envelopes
from linkspan.cli.target import chosen, opened_stores
from linkspan.content import decode_content
from linkspan.errors import Code, Error, SetupError
from linkspan.letters.desk import holder
from linkspan.ports import LetterState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from linkspan.app import App
    from linkspan.ports import Letter, Store

__all__ = [
    "AsJson",
    "Number",
    "Service",
    "SomePositions",
    "Target",
    "Who",
    "Why",
    "content_class",
    "decoded",
    "found_letter",
    "is_dead",
    "one_store",
    "the_service",
]

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
Service = Annotated[str, typer.Option("--service", help="The service that holds it.", metavar="NAME")]
SomePositions = Annotated[list[int] | None, typer.Argument(help="Numbers from `dead list`.", metavar="[NUMBER]...")]
Number = Annotated[int, typer.Argument(help="Number from `dead list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _user() -> str:
    """Return who runs the command; in a container the user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


Who = Annotated[str, typer.Option("--who", help="Who does it, for the audit.", default_factory=_user, metavar="NAME", show_default="you")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept in the audit.", metavar="TEXT")]


def the_service(app: App, service: str) -> str:
    """Return the service that is meant: the named one, or the only one there is."""
    if service:
        return chosen(app, service)[0].name
    if len(app.services) == 1:
        return app.services[0].name
    raise SetupError(f"Numbers count per service: name one with --service ({', '.join(each.name for each in app.services)}).")


@asynccontextmanager
async def one_store(app: App, service: str) -> AsyncGenerator[Store]:
    """Open one service's store beside the running service."""
    async with opened_stores(app, service) as stores:
        yield stores[service]


async def found_letter(store: Store, service: str, number: int) -> Letter:
    """Return a held message. Raises `SetupError` when the service holds none of that number."""
    letter = await store.letter(number)
    if letter is None or holder(letter) != service:
        raise SetupError(f"Service '{service}' holds no message {number}: look at `linkspan dead list`.")
    return letter


def is_dead(letter: Letter | None, service: str) -> bool:
    """Tell whether a letter is a dead one of a service."""
    return letter is not None and letter.state is LetterState.DEAD and holder(letter) == service


def content_class(app: App, letter: Letter) -> type[Any] | None:
    """Return the message class of a letter's content, None where its service handles no such type."""
    (declared,) = chosen(app, holder(letter))
    known = {handled.name: handled.request for handled in (*declared.events.values(), *declared.operations.values())}
    return known.get(letter.type)


def decoded(cls: type[Any], letter: Letter) -> Any:
    """Return a letter's content. Raises `Error`."""
    envelope = envelopes.read(letter.headers, letter.data)
    if envelope.reference is not None:
        raise Error(Code.FAILED_PRECONDITION, f"{envelope.reference.length} bytes in the blob place: {envelope.reference.uri}")
    return decode_content(cls, letter.data, envelope.content_type)
