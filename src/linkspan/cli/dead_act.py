"""`linkspan dead redrive|discard`: what a person decides, audited with who and why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from linkspan.cli.dead_target import Service, Target, Who, Why, one_store, the_service
from linkspan.cli.target import load_app
from linkspan.desk import Choice, Desk, holder
from linkspan.errors import SetupError
from linkspan.ports import LetterState
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter, Store

__all__ = ["add_to"]

Positions = Annotated[list[int], typer.Argument(help="Numbers from `dead list`.", metavar="NUMBER")]
SomePositions = Annotated[list[int] | None, typer.Argument(help="Numbers from `dead list`.", metavar="[NUMBER]...")]
Group = Annotated[str, typer.Option("--group", help="All of a group of `dead list`.", metavar="GROUP")]
Key = Annotated[str, typer.Option("--key", help="All of a key.", metavar="KEY")]


def add_to(commands: typer.Typer) -> None:
    """Add the commands that change something."""
    commands.command(epilog="Example: linkspan dead redrive hello:app 3 --service mail --why 'address service is back'")(redrive)
    commands.command(epilog="Example: linkspan dead discard hello:app 3 --service mail --why 'test order'")(discard)


def redrive(target: Target, numbers: Positions, why: Why, service: Service = "", *, who: Who) -> None:
    """Try dead letters again, in their order; a running service takes them up within a second."""
    app = load_app(target)
    name = the_service(app, service)
    changed, left = asyncio.run(_redrive(app, name, list(dict.fromkeys(numbers)), who, why))
    typer.echo(f"{changed} will be tried again.")
    if left:
        typer.echo(f"linkspan: Left alone, no dead letters of '{name}': {', '.join(map(str, left))}.", err=True)
        raise typer.Exit(1)


async def _redrive(app: App, service: str, numbers: list[int], who: str, why: str) -> tuple[int, list[int]]:
    async with one_store(app, service) as store:
        there = [number for number in numbers if _is_dead(await store.letter(number), service)]
        changed = await store.redrive(there, who=who, why=why, at=system().clock.now()) if there else 0
    return changed, [number for number in numbers if number not in there]


def _is_dead(letter: Letter | None, service: str) -> bool:
    return letter is not None and letter.state is LetterState.DEAD and holder(letter) == service


def discard(  # noqa: PLR0913 - options of a command
    target: Target,
    why: Why,
    numbers: SomePositions = None,
    service: Service = "",
    *,
    group: Group = "",
    key: Key = "",
    everything: Annotated[bool, typer.Option("--all", help="All dead letters of the service.")] = False,
    who: Who,
) -> None:
    """End dead letters for good, audited; the next message of each key moves up."""
    app = load_app(target)
    name = the_service(app, service)
    if bool(numbers) + bool(group or key) + everything != 1:
        raise SetupError("Say what to discard, in one way: numbers, --group, --key, or --all.")
    if numbers:
        count = asyncio.run(_discard(app, name, list(dict.fromkeys(numbers)), who, why))
        typer.echo("Discarded." if count == 1 else f"{count} discarded.")
    else:
        typer.echo(f"{asyncio.run(_discard_all(app, Choice(name, group=group, key=key), who, why))} discarded.")


async def _discard(app: App, service: str, numbers: list[int], who: str, why: str) -> int:
    async with one_store(app, service) as store:
        letters: list[Letter] = []
        for number in numbers:
            letter = await store.letter(number)
            if letter is None or not _is_dead(letter, service):
                raise SetupError(f"Message {number} of service '{service}' is no dead letter: only dead letters can be discarded.")
            letters.append(letter)
        return await Desk(store).discard(letters, who=who, why=why, at=system().clock.now())


async def _discard_all(app: App, choice: Choice, who: str, why: str) -> int:
    async with one_store(app, choice.service) as store:
        return await _discard_pages(store, choice, who, why)


async def _discard_pages(store: Store, choice: Choice, who: str, why: str) -> int:
    desk, count, after = Desk(store), 0, 0
    while page := await desk.letters(choice, after, 1000):
        count += await desk.discard(page, who=who, why=why, at=system().clock.now())
        after = page[-1].position
    return count
