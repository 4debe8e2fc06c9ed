"""`linkspan outbox scheduled`: messages that leave later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.dead_target import AsJson, Target, Who, Why, one_store, the_service
from linkspan.cli.table import moment, show
from linkspan.cli.target import load_app, opened_stores
from linkspan.errors import SetupError
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Scheduled

__all__ = ["commands"]

commands = typer.Typer(help="Look at messages that leave later, and take them back.", no_args_is_help=True)

Sender = Annotated[str, typer.Option("--service", help="The service that sends it.", metavar="NAME")]


@commands.command("list", epilog="Example: linkspan outbox scheduled list hello:app")
def list_(
    target: Target,
    service: Sender = "",
    *,
    limit: Annotated[int, typer.Option(help="At most this many per service.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List scheduled messages, the next one first."""
    rows = asyncio.run(_listed(load_app(target), service, limit))
    show(rows, as_json=as_json, empty="Nothing is scheduled.")


async def _listed(app: App, service: str, limit: int) -> list[dict[str, Any]]:
    async with opened_stores(app, service) as stores:
        found = {name: await store.scheduled(f"/{name}", limit=limit) for name, store in stores.items()}
    return [_row(name, each) for name, rows in found.items() for each in rows]


def _row(service: str, row: Scheduled) -> dict[str, Any]:
    message = row.message
    return {
        "service": service,
        "number": row.position,
        "due": moment(row.due),
        "type": f"{message.topic.rpartition('.')[0]}.{message.name}",
        "key": message.key,
        "id": message.id,
        "bytes": len(message.data),
    }


@commands.command("cancel", epilog="Example: linkspan outbox scheduled cancel hello:app 3 --service shop --why 'sold out'")
def cancel(
    target: Target,
    number: Annotated[int, typer.Argument(help="Number from `outbox scheduled list`.")],
    why: Why,
    who: Who,
    service: Sender = "",
) -> None:
    """Take a scheduled message back, audited; also beside the running service."""
    app = load_app(target)
    name = the_service(app, service)
    if not asyncio.run(_cancelled(app, name, number, who, why)):
        raise SetupError(f"Service '{name}' has no scheduled message {number}: it has left, or was cancelled.")
    typer.echo("Cancelled.")


async def _cancelled(app: App, service: str, number: int, who: str, why: str) -> bool:
    async with one_store(app, service) as store:
        return await store.cancel_scheduled(number, f"/{service}", who=who, why=why, at=system().clock.now())
