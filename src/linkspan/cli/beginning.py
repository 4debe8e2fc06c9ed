"""The commands of the first ten minutes: `new`, `dev`, `call`, `tap`, `trace`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add_to"]

AppOption = Annotated[
    str, typer.Option("--app", help="The app, as module:attribute; by default the one of this folder.", metavar="MODULE:APP")
]


def add_to(cli: typer.Typer) -> None:
    """Give the command line these commands."""
    cli.command(epilog="Example: linkspan new shop")(new)
    cli.command(epilog="Examples: linkspan dev, or for one of several apps: linkspan dev shop:app --level debug")(dev)
    cli.command(epilog='Example: linkspan call place_order \'{"orderId": "7"}\'')(call)
    cli.command(epilog="Examples: linkspan tap, or what was placed in the last ten minutes: linkspan tap OrderPlaced --since 10m")(tap)
    cli.command(epilog="Example: linkspan trace 01a2028c-cedc-7599-ac18-25a35794583a")(trace)


def new(name: Annotated[str, typer.Argument(help="The name of the project and its folder.", metavar="NAME")]) -> None:
    """Make a project in a folder of its own: a query, a command, an event and a test, ready to run."""
    from linkspan.cli.new import make, next_commands  # noqa: PLC0415 - only here

    made = make(name, Path.cwd())
    typer.echo(f"Made {name}: {', '.join(made)}.\n")
    for line in next_commands(name):
        typer.echo(f"  {line}")


def dev(
    target: Annotated[
        str, typer.Argument(help="The app, as module:attribute; by default the one of this folder.", metavar="[MODULE:APP]")
    ] = "",
    log: Annotated[str, typer.Option(help="pretty, text, json or off; logs go to standard error.", metavar="FORM")] = "pretty",
    level: Annotated[str, typer.Option(help="The lowest level to log: debug, info, warning or error.", metavar="LEVEL")] = "warning",
    *,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Start anew when a file is saved.")] = True,
) -> None:
    """Run an app while you write it: it starts anew when a file is saved, and its time rests while a debugger holds it."""
    from linkspan.cli.dev import check_target, develop  # noqa: PLC0415 - only here
    from linkspan.cli.folder import found_target  # noqa: PLC0415 - only here
    from linkspan.telemetry.logs import check_form  # noqa: PLC0415 - only here

    check_form(log, level)
    target = target or found_target(Path.cwd())
    check_target(target)
    raise typer.Exit(asyncio.run(develop(target, log, level, reload=reload)))


def _operation_names(incomplete: str) -> list[str]:
    """Return what the shell may complete an operation to."""
    from linkspan.cli.folder import found_target  # noqa: PLC0415 - only here
    from linkspan.cli.operations import operations_of  # noqa: PLC0415 - only here
    from linkspan.cli.target import load_app  # noqa: PLC0415 - only here

    try:
        names = [each.name for each in operations_of(load_app(found_target(Path.cwd())))]
    except Exception:  # noqa: BLE001 - a shell that completes must not be shown a traceback
        return []
    return [name for name in names if name.startswith(incomplete)]


def call(  # noqa: PLR0913 - each is an option of its own
    operation: Annotated[
        str,
        typer.Argument(
            help="Its name, full or shortened from the left: shop.v1.Orders.PlaceOrder, PlaceOrder or place_order.",
            metavar="OPERATION",
            autocompletion=_operation_names,
        ),
    ],
    request: Annotated[
        str, typer.Argument(help="The request in JSON, @file, or - for standard input; several as an array or as lines.", metavar="JSON")
    ] = "{}",
    *,
    app: AppOption = "",
    address: Annotated[str, typer.Option("--address", help="Where it answers, as http://host:port.", metavar="URL")] = "",
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds to wait for the answer.", metavar="SECONDS")] = None,
    key: Annotated[str, typer.Option("--key", help="The idempotency key; a new one by default.", metavar="KEY")] = "",
    header: Annotated[list[str] | None, typer.Option("--header", help="A header to send; repeat for more.", metavar="NAME:VALUE")] = None,
    show_trace: Annotated[bool, typer.Option("--show-trace", help="Tell the trace id on standard error, for linkspan trace.")] = False,
) -> None:
    """Call an operation of a running app and print its answer as JSON, of a stream one a line.

    An error goes to standard error with its code, exit code 1.
    """
    from linkspan.cli.call import ask, prepare  # noqa: PLC0415 - only here

    asked = prepare(operation, request, app=app, address=address, timeout=timeout, key=key, headers=header or ())
    trace = asyncio.run(ask(asked, typer.echo))
    if show_trace:
        typer.echo(f"trace {trace}", err=True)


def tap(
    names: Annotated[
        list[str] | None, typer.Argument(help="Topics, packages, events or commands; all by default.", metavar="[TOPIC|EVENT...]")
    ] = None,
    *,
    app: AppOption = "",
    since: Annotated[
        str, typer.Option("--since", help="Begin earlier: 10m, 2h, 2026-01-31T12:00:00Z, or all that is kept.", metavar="WHEN")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", help="End after this many.", metavar="NUMBER", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per message.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show personal data too.")] = False,
) -> None:
    """Watch messages pass the broker, decoded, personal data masked. It disturbs nobody: no group sees fewer or other messages."""
    from linkspan.cli.folder import found_target  # noqa: PLC0415 - only here
    from linkspan.cli.tap import Look, moment_of, watch  # noqa: PLC0415 - only here
    from linkspan.cli.target import load_app  # noqa: PLC0415 - only here
    from linkspan.runtime import system  # noqa: PLC0415 - only here

    look = Look(moment_of(since, system().clock.now()), limit, as_json, raw)
    count = asyncio.run(watch(load_app(app or found_target(Path.cwd())), names or (), look))
    typer.echo(f"{count} message{'' if count == 1 else 's'}.", err=True)


def trace(
    flow: Annotated[str, typer.Argument(help="A trace id, a correlation id, or the id of a call or message.", metavar="ID")],
    *,
    app: AppOption = "",
    since: Annotated[
        str, typer.Option("--since", help="Read the broker's log from then on: 10m, 2h, 2026-01-31T12:00:00Z, or all.", metavar="WHEN")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one flow as a waterfall: calls, outbox, broker, handlers, retries, held messages. It needs no collector.

    The runs of handlers are known where the app runs in linkspan dev, or with run --record-traces; the rest always.
    """
    from linkspan.cli.folder import found_target  # noqa: PLC0415 - only here
    from linkspan.cli.tap import moment_of  # noqa: PLC0415 - only here
    from linkspan.cli.target import load_app  # noqa: PLC0415 - only here
    from linkspan.cli.trace import collect  # noqa: PLC0415 - only here
    from linkspan.cli.waterfall import lines, plain, steps  # noqa: PLC0415 - only here
    from linkspan.errors import SetupError  # noqa: PLC0415 - only here
    from linkspan.runtime import system  # noqa: PLC0415 - only here

    now = system().clock.now()
    found = asyncio.run(collect(load_app(app or found_target(Path.cwd())), flow, since=moment_of(since, now)))
    for note in found.notes:
        typer.echo(f"linkspan: {note}", err=True)
    if not found.found:
        raise SetupError(f"Nothing is known of '{flow}' here: look with --since, and run the app with linkspan dev or --record-traces 1.")
    told = steps(found, now)
    if as_json:
        typer.echo(json.dumps(plain(told), indent=2))
        return
    for line in lines(told):
        typer.echo(line)
