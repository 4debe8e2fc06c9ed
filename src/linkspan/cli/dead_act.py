"""`linkspan dead discard`, and the other commands by which a person decides, audited with who and why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from linkspan.cli.dead_dry_run import dry_run
from linkspan.cli.dead_edit import edit
from linkspan.cli.dead_redrive import redrive
from linkspan.cli.dead_target import Service, SomePositions, Target, Who, Why, is_dead, one_store, the_service
from linkspan.cli.target import load_app
from linkspan.errors import SetupError
from linkspan.letters.desk import Choice, Desk
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter, Store

__all__ = ["add_to"]

Group = Annotated[str, typer.Option("--group", help="All of a group of `dead list`.", metavar="GROUP")]
Key = Annotated[str, typer.Option("--key", help="All of a key.", metavar="KEY")]


def add_to(commands: typer.Typer) -> None:
    """Add the commands that change something."""
    commands.command("dry-run", epilog="Example: linkspan dead dry-run hello:app 3 --service mail")(dry_run)
    commands.command(epilog="Example: linkspan dead edit hello:app 3 --service mail --set number=2 --why 'typing error'")(edit)
    commands.command(epilog="Example: linkspan dead redrive hello:app --group 1f2e3d4c5b6a --service mail --why 'address service is back'")(
        redrive
    )
    commands.command(epilog="Example: linkspan dead discard hello:app 3 --service mail --why 'test order'")(discard)


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
            if letter is None or not is_dead(letter, service):
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
