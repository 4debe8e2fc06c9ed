"""The commands themselves."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli import dead, doctor
from linkspan.cli.table import show
from linkspan.cli.target import load_app, opened_stores
from linkspan.errors import SetupError
from linkspan.operation import Command

if TYPE_CHECKING:
    from linkspan.app import App

__all__ = ["cli"]

cli = typer.Typer(
    name="linkspan",
    help="The space between services: run them, look at them, mend what got stuck.",
    no_args_is_help=True,
    add_completion=False,
)
outbox = typer.Typer(help="Look at messages that wait for the broker.", no_args_is_help=True)
cli.add_typer(outbox, name="outbox")
cli.add_typer(dead.commands, name="dead")

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OneService = Annotated[str, typer.Option("--service", help="Only this service.")]


@cli.command(epilog="Example: linkspan run hello:app --log text")
def run(
    target: Target,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run just this service of the app; repeat for more.")] = None,
    log: Annotated[str, typer.Option(help="json, text or off.")] = "text",
    level: Annotated[str, typer.Option(help="The lowest level to log.")] = "info",
) -> None:
    """Run an app until Ctrl-C or SIGTERM, then drain it."""
    import uvloop  # noqa: PLC0415 - only here

    from linkspan.telemetry.logs import set_up  # noqa: PLC0415 - only here

    set_up(log, level)
    app = load_app(target)
    uvloop.run(_run(app, only or []))


async def _run(app: App, only: list[str]) -> None:
    ready = asyncio.get_running_loop().create_task(_say_ready(app))
    try:
        await app.run(only)
    finally:
        ready.cancel()


async def _say_ready(app: App) -> None:
    await app.started.wait()
    names = ", ".join(app.running)
    typer.echo(f"Ready: {names}" + (f" at {app.address}" if app.address else ""))
    for line in _first_calls(app):
        typer.echo(line)


def _first_calls(app: App) -> list[str]:
    for running in app.running.values():
        for handled in running.declared.operations.values():
            if handled.operation is not None:
                return [f"Try: curl -H 'content-type: application/json' -d '{{}}' {app.address}{handled.operation.path}"]
    return []


@cli.command(epilog="Example: linkspan describe hello:app --json")
def describe(target: Target, *, as_json: AsJson = False) -> None:
    """Show services, operations, events, topics and databases as declared."""
    app = load_app(target)
    rows = _described(app)
    if as_json:
        typer.echo(json.dumps({"services": rows}, indent=2))
        return
    for service in rows:
        typer.echo(f"{service['service']}  (store {service['store']})")
        for line in service["operations"]:
            typer.echo(f"  {line['kind']:<8} {line['name']}  {line['request']} -> {line['response']}  {', '.join(line['paths'])}")
        for line in service["reacts_to"]:
            typer.echo(f"  event    {line['name']}  {'once' if line['once'] else 'at least once'}")


def _described(app: App) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for service in app.services:
        operations: list[dict[str, Any]] = []
        for handled in service.operations.values():
            operation = handled.operation
            if operation is not None:
                paths = ["direct", "durable"] if isinstance(operation, Command) else ["direct"]
                operations.append(
                    {
                        "kind": operation.kind,
                        "name": operation.full_name,
                        "path": operation.path,
                        "request": operation.request.__name__,
                        "response": operation.response.__name__,
                        "paths": paths,
                    }
                )
        reacts = [{"name": each.name, "once": each.once} for each in service.events.values()]
        rows.append({"service": service.name, "store": app.store_url(service), "operations": operations, "reacts_to": reacts})
    return rows


@outbox.command("status", epilog="Example: linkspan outbox status hello:app")
def outbox_status(target: Target, service: OneService = "", *, as_json: AsJson = False) -> None:
    """Show how many messages wait for the broker, and for how long the oldest."""
    app = load_app(target)
    show(asyncio.run(_depths(app, service)), as_json=as_json, empty="No database yet: run the app first.")


async def _depths(app: App, service: str) -> list[dict[str, Any]]:
    async with opened_stores(app, service) as stores:
        depths = {name: await store.depth() for name, store in stores.items()}
    return [{"service": name, "waiting": count, "oldest_seconds": round(age, 3)} for name, (count, age) in depths.items()]


@cli.command("doctor", epilog="Example: linkspan doctor hello:app")
def check_health(
    target: Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="[MODULE:APP]")] = "", *, as_json: AsJson = False
) -> None:
    """Check the machine, the engines and their settings, and say how durable an acknowledgement is."""
    rows = asyncio.run(doctor.examine(load_app(target) if target else None))
    show(rows, as_json=as_json, empty="")
    if any(row["state"] == "bad" for row in rows):
        raise SetupError("Something above is bad: it says what to do.")
