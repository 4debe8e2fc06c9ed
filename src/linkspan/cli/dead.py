"""`linkspan dead`: what services hold because it could not be handled."""

from __future__ import annotations

import asyncio
import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.table import moment, show
from linkspan.cli.target import load_app, opened_stores
from linkspan.errors import Error, SetupError
from linkspan.message import decode, redacted
from linkspan.ports import LetterState
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter

__all__ = ["commands"]

commands = typer.Typer(help="List, show, redrive or discard messages that could not be handled.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
Service = Annotated[str, typer.Option("--service", help="The service that holds it.")]
Positions = Annotated[list[int], typer.Argument(help="Numbers from `dead list`.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept in the audit table.")]
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
    found = asyncio.run(_letters(load_app(target), service, states, limit))
    rows = [_row(name, letter) for name, letters in found.items() for letter in letters]
    show(rows, as_json=as_json, empty="No dead letters.")


async def _letters(app: App, service: str, states: tuple[LetterState, ...], limit: int) -> dict[str, list[Letter]]:
    async with opened_stores(app, service) as stores:
        return {name: await store.letters(states=states, limit=limit) for name, store in stores.items()}


def _row(service: str, letter: Letter) -> dict[str, Any]:
    return {
        "service": service,
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
    rows = [{"field": field, "value": value} for field, value in _shown(app, name, letter).items()]
    show(rows, as_json=as_json, empty="")


async def _letter(app: App, service: str, number: int) -> Letter:
    async with opened_stores(app, service) as stores:
        letter = await stores[service].letter(number)
    if letter is None:
        raise SetupError(f"Service '{service}' holds no message {number}: look at `linkspan dead list`.")
    return letter


def _shown(app: App, service: str, letter: Letter) -> dict[str, Any]:
    return {
        **_row(service, letter),
        "id": letter.id,
        "source": letter.source,
        "topic": letter.topic.partition(":")[2],
        "error": letter.error,
        "first failed": moment(letter.first_failed),
        "last failed": moment(letter.last_failed),
        "due": moment(letter.due) if letter.state is LetterState.PARKED else "-",
        "redrives": letter.redrives,
        "content": _content(app, service, letter),
    }


def _content(app: App, service: str, letter: Letter) -> str:
    declared = next(each for each in app.services if each.name == service)
    known = {handled.name: handled.request for handled in (*declared.events.values(), *declared.operations.values())}
    cls = known.get(letter.type)
    if cls is None:
        return f"{len(letter.data)} bytes of a type that this service does not handle"
    try:
        return redacted(decode(cls, letter.data))
    except Error:
        return f"{len(letter.data)} bytes that cannot be decoded"


@commands.command(epilog="Example: linkspan dead redrive hello:app 3 --service mail --why 'address service is back'")
def redrive(target: Target, numbers: Positions, why: Why, service: Service = "") -> None:
    """Try dead letters again, in their order; a running service takes them up within a second."""
    app = load_app(target)
    name = _the_service(app, service)
    changed = asyncio.run(_redrive(app, name, numbers, why))
    typer.echo(f"{changed} of {len(numbers)} will be tried again.")
    if changed < len(numbers):
        raise typer.Exit(1)


async def _redrive(app: App, service: str, numbers: list[int], why: str) -> int:
    async with opened_stores(app, service) as stores:
        return await stores[service].redrive(numbers, who=getpass.getuser(), why=why, at=system().clock.now())


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
        return await stores[service].discard(number, who=getpass.getuser(), why=why, at=system().clock.now())


def _the_service(app: App, service: str) -> str:
    if service:
        return service
    if len(app.services) == 1:
        return app.services[0].name
    raise SetupError(f"Numbers count per service: name one with --service ({', '.join(each.name for each in app.services)}).")
