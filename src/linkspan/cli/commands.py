"""The commands themselves."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli import beginning, broker, contracts_check, db, dead, scheduled
from linkspan.cli.reconcile import reconcile
from linkspan.cli.recorded import recorded
from linkspan.cli.table import show
from linkspan.cli.target import load_app, opened_stores

if TYPE_CHECKING:
    from linkspan.app import App

__all__ = ["cli"]

cli = typer.Typer(
    name="linkspan",
    help="The space between services: run them, look at them, mend what got stuck.",
    epilog="Start with: linkspan new shop. An app that is there already runs with: linkspan run hello:app. Each command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
beginning.add_to(cli)
outbox = typer.Typer(help="Look at messages that wait for the broker.", no_args_is_help=True)
cli.add_typer(outbox, name="outbox")
outbox.add_typer(scheduled.commands, name="scheduled")
outbox.command("reconcile", epilog="Example: linkspan outbox reconcile hello:app --older 60")(reconcile)
cli.add_typer(dead.commands, name="dead")
cli.add_typer(db.commands, name="db")
cli.add_typer(broker.commands, name="broker")
cli.add_typer(contracts_check.commands, name="contracts")

Target = Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OneService = Annotated[str, typer.Option("--service", help="Only this service.", metavar="NAME")]


def _say_version(value: bool) -> None:  # noqa: FBT001 - the shape that typer calls
    if value:
        from importlib.metadata import version  # noqa: PLC0415 - only here

        typer.echo(f"linkspan {version('linkspan')}")
        raise typer.Exit


@cli.callback()
def root(
    *, version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")] = False
) -> None:
    """Take the options that stand before a command."""


@cli.command(epilog="Examples: linkspan run hello:app --log json, or a service per process: linkspan run shop:app --only orders")
def run(
    target: Target,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Run just this service of the app; repeat for more.", metavar="NAME")
    ] = None,
    log: Annotated[str, typer.Option(help="json, text, pretty or off; logs go to standard error.", metavar="FORM")] = "text",
    level: Annotated[str, typer.Option(help="The lowest level to log: debug, info, warning or error.", metavar="LEVEL")] = "info",
    *,
    record_traces: Annotated[
        float,
        typer.Option("--record-traces", help="The share of flows kept for linkspan trace, 0 to 1.", metavar="SHARE", min=0.0, max=1.0),
    ] = 0.0,
) -> None:
    """Run an app until Ctrl-C or SIGTERM, then drain it. A second signal ends it at once."""
    import uvloop  # noqa: PLC0415 - only here

    from linkspan.telemetry.logs import set_up  # noqa: PLC0415 - only here

    app = load_app(target)
    set_up(log, level)
    recorder = recorded(app, record_traces) if record_traces else None
    try:
        uvloop.run(_run(app, only or []))
    finally:
        if recorder is not None:
            recorder.close()


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
    for what, address in (("gRPC", app.grpc_address), ("Probes", app.probes_address)):
        if address:
            typer.echo(f"{what} at {address}")
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
    """Show services, operations, events, topics, databases and limits as declared, without starting anything."""
    from linkspan.cli.describe import described, lines  # noqa: PLC0415 - only here

    found = described(load_app(target))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


@outbox.command("status", epilog="Example: linkspan outbox status hello:app")
def outbox_status(target: Target, service: OneService = "", *, as_json: AsJson = False) -> None:
    """Show how many messages wait for the broker, and for how long the oldest."""
    app = load_app(target)
    show(asyncio.run(_depths(app, service)), as_json=as_json, empty="")


async def _depths(app: App, service: str) -> list[dict[str, Any]]:
    async with opened_stores(app, service) as stores:
        depths = {name: await store.depth() for name, store in stores.items()}
    return [{"service": name, "waiting": count, "oldest_seconds": round(age, 3)} for name, (count, age) in depths.items()]


@cli.command("lanes", epilog="Example: linkspan lanes shop:app")
def show_lanes(target: Target, service: OneService = "", *, as_json: AsJson = False) -> None:
    """Show which instance of each service has which lanes, of its topics and of its outbox."""
    from linkspan.cli.lanes import owners  # noqa: PLC0415 - only here

    show(asyncio.run(owners(load_app(target), service)), as_json=as_json, empty="No instance has run yet.")


@cli.command("doctor", epilog="Example: linkspan doctor hello:app")
def check_health(
    target: Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="[MODULE:APP]")] = "", *, as_json: AsJson = False
) -> None:
    """Check the machine, the engines and their settings, and say how durable an acknowledgement is. Exits with 1 when something is bad."""
    from linkspan.cli import doctor  # noqa: PLC0415 - only here

    rows = asyncio.run(doctor.examine(load_app(target) if target else None))
    show(rows, as_json=as_json, empty="")
    if any(row["state"] == "bad" for row in rows):
        typer.echo("linkspan: Something is bad: its line says what to do.", err=True)
        raise typer.Exit(1)
