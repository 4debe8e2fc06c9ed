"""`linkspan db`: the tables of services, made, checked and brought up to date apart from running them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.table import show
from linkspan.cli.target import chosen, load_app
from linkspan.runtime import system
from linkspan.stores import open_store, without_password
from linkspan.stores.schema_look import look, upgrade_sql

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.service import Service

__all__ = ["commands"]

commands = typer.Typer(help="Make, check and upgrade the tables of services.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
OneService = Annotated[str, typer.Option("--service", help="Only this service.", metavar="NAME")]
AsSql = Annotated[bool, typer.Option("--sql", help="Print the SQL for Linkspan's own tables, and change nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command(
    "init", epilog="Examples: linkspan db init shop:app, or for who may make tables: linkspan db init shop:app --sql | psql shop"
)
def init(target: Target, service: OneService = "", *, sql: AsSql = False) -> None:
    """Make Linkspan's tables and apply the app's own migrations. With --sql it connects to nothing."""
    app = load_app(target)
    if sql:
        for each in _places(app, service):
            typer.echo(f"-- {each.name}: {without_password(app.store_url(each))}")
            typer.echo(upgrade_sql(app.store_url(each), each.name, 0))
        return
    asyncio.run(_bring(app, service))


@commands.command("check", epilog="Example: linkspan db check shop:app --json")
def check(target: Target, service: OneService = "", *, as_json: AsJson = False) -> None:
    """Compare databases with what this linkspan and this app want, part by part; change nothing. Exits with 1 where they differ."""
    app = load_app(target)
    rows = asyncio.run(_findings(app, service))
    show(rows, as_json=as_json, empty="")
    if any(row["state"] != "current" for row in rows):
        raise typer.Exit(1)


@commands.command("upgrade", epilog="Example, before a deploy: linkspan db upgrade shop:app")
def upgrade(target: Target, service: OneService = "", *, sql: AsSql = False) -> None:
    """Bring tables to the newest format and apply the app's new migrations. Instances that start together do the same, in turns."""
    app = load_app(target)
    asyncio.run(_print_upgrade(app, service) if sql else _bring(app, service))


def _places(app: App, service: str) -> list[Service]:
    """Return one service for each database."""
    found: dict[str, Service] = {}
    for each in chosen(app, service):
        found.setdefault(app.store_url(each), each)
    return list(found.values())


async def _findings(app: App, service: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for each in _places(app, service):
        state = await look(app.store_url(each), each.name, app.migrations(each))
        rows += [{"service": each.name, "state": how, "finding": what} for how, what in state.findings()]
    return rows


async def _print_upgrade(app: App, service: str) -> None:
    for each in _places(app, service):
        state = await look(app.store_url(each), each.name, app.migrations(each))
        typer.echo(f"-- {each.name}: {without_password(app.store_url(each))}, format {state.format} of {state.newest}")
        typer.echo(upgrade_sql(app.store_url(each), each.name, state.format))


async def _bring(app: App, service: str) -> None:
    for each in _places(app, service):
        url = app.store_url(each)
        before = await look(url, each.name, app.migrations(each))
        store = open_store(url, name=each.name, runtime=system())
        await store.open()
        try:
            await store.migrate(app.migrations(each))
        finally:
            await store.aclose()
        steps = before.newest - before.format + len(before.pending)
        typer.echo(f"{each.name}: {'up to date already' if before.current else f'{steps} steps done'}")
