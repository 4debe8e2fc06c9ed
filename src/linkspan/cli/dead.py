"""`linkspan dead`: what services hold because it could not be handled."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan import envelope as envelopes
from linkspan.cli.table import moment, show
from linkspan.cli.target import chosen, load_app, opened_stores
from linkspan.content import decode_content
from linkspan.errors import Error, SetupError
from linkspan.message import redacted
from linkspan.ports import LetterState
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter

__all__ = ["commands"]

commands = typer.Typer(help="List, show, redrive or discard messages that could not be handled.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
Service = Annotated[str, typer.Option("--service", help="The service that holds it.", metavar="NAME")]
Positions = Annotated[list[int], typer.Argument(help="Numbers from `dead list`.", metavar="NUMBER")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept in the audit table.", metavar="TEXT")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("list", epilog="Example: linkspan dead list hello:app")
def list_(
    target: Target,
    service: Service = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Parked and waiting messages too.")] = False,
    limit: Annotated[int, typer.Option(help="At most this many per service.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters in order, oldest first."""
    states = () if everything else (LetterState.DEAD,)
    letters = asyncio.run(_letters(load_app(target), service, states, limit))
    show([_row(letter) for letter in letters], as_json=as_json, empty="Nothing is held." if everything else "No dead letters.")


async def _letters(app: App, service: str, states: tuple[LetterState, ...], limit: int) -> list[Letter]:
    async with opened_stores(app, service) as stores:
        found = [letter for store in dict.fromkeys(stores.values()) for letter in await store.letters(states=states, limit=limit)]
    return [letter for letter in found if service in {"", _holder(letter)}]


def _holder(letter: Letter) -> str:
    """Return the service that holds a letter: services that share a store keep them apart by the topic's name there."""
    return letter.topic.partition(":")[0]


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "service": _holder(letter),
        "number": letter.position,
        "state": letter.state.value,
        "type": letter.type or "(unreadable)",
        "attempts": letter.attempts,
        "code": letter.code or "-",
        "group": letter.fingerprint or "-",
        "since": moment(letter.received),
    }


@commands.command("show", epilog="Example: linkspan dead show hello:app 3 --service mail")
def show_one(
    target: Target,
    number: Annotated[int, typer.Argument(help="Number from `dead list`.")],
    service: Service = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show one held message: why, since when, and its content with personal data masked."""
    app = load_app(target)
    name = _the_service(app, service)
    letter = asyncio.run(_letter(app, name, number))
    shown = _shown(app, letter)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
    else:
        show([{"field": field, "value": value} for field, value in shown.items()], as_json=False, empty="")


async def _letter(app: App, service: str, number: int) -> Letter:
    async with opened_stores(app, service) as stores:
        letter = await stores[service].letter(number)
    if letter is None or _holder(letter) != service:
        raise SetupError(f"Service '{service}' holds no message {number}: look at `linkspan dead list`.")
    return letter


def _shown(app: App, letter: Letter) -> dict[str, Any]:
    return {
        **_row(letter),
        "id": letter.id,
        "source": letter.source,
        "topic": letter.topic.partition(":")[2],
        "error": letter.error,
        "first failed": moment(letter.first_failed),
        "last failed": moment(letter.last_failed),
        "due": moment(letter.due) if letter.state is LetterState.PARKED else "-",
        "redrives": letter.redrives,
        "content": _content(app, letter),
    }


def _content(app: App, letter: Letter) -> str:
    (declared,) = chosen(app, _holder(letter))
    known = {handled.name: handled.request for handled in (*declared.events.values(), *declared.operations.values())}
    cls = known.get(letter.type)
    if cls is None:
        return f"{len(letter.data)} bytes of a type that this service does not handle"
    try:
        return redacted(decode_content(cls, letter.data, envelopes.read(letter.headers, letter.data).content_type))
    except Error:
        return f"{len(letter.data)} bytes that cannot be decoded"


@commands.command(epilog="Example: linkspan dead redrive hello:app 3 --service mail --why 'address service is back'")
def redrive(target: Target, numbers: Positions, why: Why, service: Service = "") -> None:
    """Try dead letters again, in their order; a running service takes them up within a second."""
    app = load_app(target)
    name = _the_service(app, service)
    changed, left = asyncio.run(_redrive(app, name, list(dict.fromkeys(numbers)), why))
    typer.echo(f"{changed} will be tried again.")
    if left:
        typer.echo(f"linkspan: Left alone, no dead letters of '{name}': {', '.join(map(str, left))}.", err=True)
        raise typer.Exit(1)


async def _redrive(app: App, service: str, numbers: list[int], why: str) -> tuple[int, list[int]]:
    async with opened_stores(app, service) as stores:
        store = stores[service]
        there = [number for number in numbers if _is_dead(await store.letter(number), service)]
        changed = await store.redrive(there, who=_user(), why=why, at=system().clock.now()) if there else 0
    return changed, [number for number in numbers if number not in there]


def _is_dead(letter: Letter | None, service: str) -> bool:
    return letter is not None and letter.state is LetterState.DEAD and _holder(letter) == service


def _user() -> str:
    """Return who runs the command; in a container the user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@commands.command(epilog="Example: linkspan dead discard hello:app 3 --service mail --why 'test order'")
def discard(
    target: Target, number: Annotated[int, typer.Argument(help="Number from `dead list`.")], why: Why, service: Service = ""
) -> None:
    """End a dead letter for good, audited; the next message of its key moves up."""
    app = load_app(target)
    name = _the_service(app, service)
    if not asyncio.run(_discard(app, name, number, why)):
        raise SetupError(f"Message {number} of service '{name}' is no dead letter: only dead letters can be discarded.")
    typer.echo("Discarded.")


async def _discard(app: App, service: str, number: int, why: str) -> bool:
    async with opened_stores(app, service) as stores:
        store = stores[service]
        if not _is_dead(await store.letter(number), service):
            return False
        return await store.discard(number, who=_user(), why=why, at=system().clock.now())


def _the_service(app: App, service: str) -> str:
    if service:
        return chosen(app, service)[0].name
    if len(app.services) == 1:
        return app.services[0].name
    raise SetupError(f"Numbers count per service: name one with --service ({', '.join(each.name for each in app.services)}).")
