"""`linkspan dead redrive`: a few at once by number, many as a redrive that the running service carries out at a limited rate."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.dead_target import Service, SomePositions, Target, Who, is_dead, one_store, the_service
from linkspan.cli.table import moment, show
from linkspan.cli.target import load_app
from linkspan.errors import SetupError
from linkspan.letters.desk import Desk
from linkspan.letters.redrive import Redrive, Redrives
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.letters.redrive import Progress
    from linkspan.ports import Store

__all__ = ["redrive"]

FEW = 20
"""Letters that may be named by their numbers; more are a redrive of many."""
AGAIN = 1.0
"""Seconds between two lines of progress."""
AWAY = 10.0
"""Seconds after which a service that said nothing is taken for not running."""


def redrive(  # noqa: PLR0913 - options of a command
    target: Target,
    numbers: SomePositions = None,
    service: Service = "",
    *,
    group: Annotated[str, typer.Option("--group", help="All of a group of `dead list`.", metavar="GROUP")] = "",
    key: Annotated[str, typer.Option("--key", help="All of a key.", metavar="KEY")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All dead letters of the service.")] = False,
    rate: Annotated[float, typer.Option(help="At most so many a second.", min=0.1, max=10_000.0)] = 10.0,
    canary: Annotated[int, typer.Option(help="So many first; the others follow when these went well.", min=0)] = 20,
    patience: Annotated[float, typer.Option(help="Seconds after which a run counts as failed while it lasts.", min=0.1)] = 4.0,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show how far it is.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the redrives there were.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the one that is under way.")] = False,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the audit.", metavar="TEXT")] = "",
    who: Who,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (with --status).")] = False,
) -> None:
    """Try dead letters again, in the order of their keys: a few by number at once, many at a limited rate that stops by itself."""
    app = load_app(target)
    name = the_service(app, service)
    if status:
        show(asyncio.run(_status(app, name)), as_json=as_json, empty="No redrive was asked for.")
        return
    if not why:
        raise SetupError("A redrive is audited: say why, with --why 'address service is back'.")
    if bool(numbers) + bool(group or key) + everything + stop != 1:
        raise SetupError("Say what to redrive, in one way: numbers, --group, --key, or --all; or --status, or --stop.")
    if stop:
        asyncio.run(_stop(app, name, who, why))
    elif numbers:
        _few(app, name, list(dict.fromkeys(numbers)), (who, why))
    else:
        asked = Redrive(system().ids.new(), name, group, key, 0, 0, rate, canary, patience, who, why, system().clock.now())
        asyncio.run(_many(app, asked, watch=watch))


# --- a few -----------------------------------------------------------------------------------------


def _few(app: App, service: str, numbers: list[int], audit: tuple[str, str]) -> None:
    if len(numbers) > FEW:
        raise SetupError(f"{len(numbers)} letters at once could be too many for what was broken: use --group, --key or --all.")
    changed, left = asyncio.run(_marked(app, service, numbers, audit))
    typer.echo(f"{changed} will be tried again.")
    if left:
        typer.echo(f"linkspan: Left alone, no dead letters of '{service}': {', '.join(map(str, left))}.", err=True)
        raise typer.Exit(1)


async def _marked(app: App, service: str, numbers: list[int], audit: tuple[str, str]) -> tuple[int, list[int]]:
    async with one_store(app, service) as store:
        there = [number for number in numbers if is_dead(await store.letter(number), service)]
        changed = await store.redrive(there, who=audit[0], why=audit[1], at=system().clock.now()) if there else 0
    return changed, [number for number in numbers if number not in there]


# --- many ------------------------------------------------------------------------------------------


async def _many(app: App, asked: Redrive, *, watch: bool) -> None:
    async with one_store(app, asked.service) as store:
        redrive = await _asked(store, asked)
        typer.echo(f"{redrive.total} will be tried again, {redrive.canary} first, then at most {redrive.rate:g} a second.")
        if watch:
            await _watch(store, redrive)
        else:
            typer.echo(f"Follow it: linkspan dead redrive ... --service {asked.service} --status; end it: --stop --why '...'")


async def _asked(store: Store, asked: Redrive) -> Redrive:
    total = await Desk(store).count(asked.choice)
    if not total:
        raise SetupError(f"Service '{asked.service}' has no such dead letters: look at `linkspan dead list`.")
    ((last,),) = await store.read("select max(position) from linkspan_letter")
    redrive = replace(asked, last=last, total=total, canary=min(asked.canary, total))
    if not await Redrives(store).ask(redrive):
        raise SetupError(f"A redrive of '{asked.service}' is under way: wait for it, or stop it with --stop.")
    return redrive


async def _watch(store: Store, redrive: Redrive) -> None:
    """Print a line a second until it is over; exit with 1 when it was stopped."""
    now: Redrive | None = redrive
    while now is not None:
        progress = await Redrives(store).progress(now)
        typer.echo(_line(now, progress))
        if not now.active:
            break
        await asyncio.sleep(AGAIN)
        now = await Redrives(store).one(redrive.id)
    if now is not None and now.state == "stopped":
        raise typer.Exit(1)


def _line(redrive: Redrive, progress: Progress) -> str:
    counts = f"{progress.taken} of {redrive.total} tried: {progress.handled} handled, {progress.failed} failed again"
    if redrive.state == "asked":
        return f"asked: waits for the service '{redrive.service}' to take it up"
    return f"{redrive.state}: {counts}" + (f". {redrive.reason}" if redrive.reason else "")


async def _status(app: App, service: str) -> list[dict[str, Any]]:
    async with one_store(app, service) as store:
        found = [(each, await Redrives(store).progress(each)) for each in await Redrives(store).newest(service)]
    return [_row(each, progress) for each, progress in found]


def _row(redrive: Redrive, progress: Progress) -> dict[str, Any]:
    away = redrive.active and system().clock.now() - max(redrive.seen, redrive.at) > AWAY
    return {
        "redrive": redrive.id,
        "asked": moment(redrive.at),
        "who": redrive.who,
        "why": redrive.why,
        "of": redrive.fingerprint or redrive.key or "all",
        "state": f"{redrive.state}, the service is away" if away else redrive.state,
        "total": redrive.total,
        "tried": progress.taken,
        "handled": progress.handled,
        "running": progress.running,
        "failed": progress.failed,
        "rate": f"{redrive.rate:g}/s",
        "ended": moment(redrive.ended),
        "reason": redrive.reason or "-",
    }


async def _stop(app: App, service: str, who: str, why: str) -> None:
    async with one_store(app, service) as store:
        found = await Redrives(store).active(service)
        if found is None or not await Redrives(store).end(found, "stopped", who=who, why=why, at=system().clock.now()):
            raise SetupError(f"No redrive of '{service}' is under way: there is nothing to stop.")
    typer.echo("Stopped: no more letters are taken; those that run end on their own.")
