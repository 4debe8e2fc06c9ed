"""`linkspan broker`: make on the broker what an app declares, by somebody who may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.table import show
from linkspan.cli.target import load_app

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Drift

__all__ = ["commands"]

commands = typer.Typer(help="Make on the broker what an app declares.", no_args_is_help=True)


@commands.callback()
def root() -> None:
    """Make on the broker what an app declares."""


@commands.command(
    epilog="Examples: linkspan broker apply shop:app, and in a pipeline, changing nothing: linkspan broker apply shop:app --check"
)
def apply(
    target: Annotated[str, typer.Argument(help="The app, as module:attribute.", metavar="MODULE:APP")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; end with exit code 1 where something differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create the streams and consumers of an app that are missing; report those with other settings, and leave them as they are."""
    rows, differs = asyncio.run(_apply(load_app(target), check=check))
    show(rows, as_json=as_json, empty="The app declares nothing that needs a broker.")
    if check and differs:
        typer.echo("linkspan: The broker differs from what the app declares: each line says where.", err=True)
        raise typer.Exit(1)


async def _apply(app: App, *, check: bool) -> tuple[list[dict[str, Any]], bool]:
    from linkspan.cli.declared import groups_of, lane_groups_of, topics_of  # noqa: PLC0415 - only here
    from linkspan.errors import SetupError  # noqa: PLC0415 - only here

    topics, groups, shared = topics_of(app), groups_of(app), sorted(lane_groups_of(app))
    alone = [group for group in groups if group not in shared]
    async with app.connected() as broker:
        compare: Any = getattr(broker, "compare", None)
        if compare is None:
            raise SetupError("This broker keeps nothing that has to be made beforehand: there is nothing to apply.")
        drifts: list[Drift] = [*await compare(topics, alone), *await compare([], shared, lanes=True)]
        if not check:
            await broker.declare(topics, alone)
            await broker.declare([], shared, lanes=True)
    rows = [_row(drift, check=check) for drift in drifts]
    if not rows:
        rows = [{"what": f"{len(topics)} topics, {len(groups)} groups", "state": "as declared", "declared": "", "found": ""}]
    return rows, bool(drifts)


def _row(drift: Drift, *, check: bool) -> dict[str, Any]:
    if drift.setting == "exists":
        return {"what": drift.what, "state": "missing" if check else "created", "declared": "", "found": ""}
    return {"what": drift.what, "state": f"differs in {drift.setting}", "declared": drift.declared, "found": drift.found}
