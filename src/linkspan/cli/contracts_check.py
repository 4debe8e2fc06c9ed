"""`linkspan contracts lock` and `check`: what was promised, and whether it still holds."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.contracts import Target, commands
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

    from linkspan.contract import Contract
    from linkspan.contracts.lock import Checked, Lock
    from linkspan.contracts.places import Place
    from linkspan.contracts.report import Report
    from linkspan.contracts.stored import Examined

__all__ = ["commands"]

BINARY = ".binpb"


class Form(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    GITHUB = "github"
    SARIF = "sarif"
    JSON = "json"


Folder = Annotated[Path, typer.Option("--lock", help="The folder of locked versions.", metavar="DIR")]


@commands.command(epilog="Examples: linkspan contracts lock hello, or: linkspan contracts lock shop:app --accept-breaking 'nobody left'")
def lock(
    target: Target,
    folder: Folder = Path("contracts"),
    reason: Annotated[
        str, typer.Option("--accept-breaking", help="Accept what breaks older versions, with this reason in the index.", metavar="REASON")
    ] = "",
) -> None:
    """Write the present contracts as the next locked version. Commit the folder: `check` holds all later changes to it."""
    from linkspan.contracts.lock import Lock  # noqa: PLC0415 - only here

    present, contracts = _present(target)
    locked = Lock.read(folder)
    checked = locked.check(present)
    if checked.errors and not reason.strip():
        _print(_report(locked, checked, contracts, []), Form.TEXT)
        typer.echo("linkspan: Not locked: mend this, or say why not with --accept-breaking REASON.", err=True)
        raise typer.Exit(1)
    made = locked.add(present, reason=reason.strip())
    if made is None:
        typer.echo(f"Nothing has changed since version {locked.versions[-1].version}.")
        return
    typer.echo(f"Locked version {made.version} in {folder / made.file}:")
    for change in made.changes:
        typer.echo(f"  {change}")
    for accepted in made.accepted:
        typer.echo(f"  accepted {accepted.rule} at {accepted.where}: {accepted.reason}")


@commands.command(epilog="Examples: linkspan contracts check hello --format github, or linkspan contracts check shop:app --store shop:app")
def check(
    target: Target,
    folder: Folder = Path("contracts"),
    form: Annotated[Form, typer.Option("--format", help="github prints workflow annotations.", case_sensitive=False)] = Form.TEXT,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead.", metavar="FILE")] = None,
    store: Annotated[
        str, typer.Option(help="Decode what is stored, too: a database (sqlite:///...) or those of an app.", metavar="URL|MODULE:APP")
    ] = "",
) -> None:
    """Compare the present contracts with every locked version. Exits with 1 when something breaks, with 2 when it cannot tell."""
    from linkspan.contracts.lock import Lock  # noqa: PLC0415 - only here

    present, contracts = _present(target)
    locked = Lock.read(folder)
    if not locked.versions and not store:
        raise SetupError(f"There is no locked version in '{folder}': run `linkspan contracts lock {target}` and commit the folder.")
    if store and not contracts:
        raise SetupError(f"'{target}' has no classes to decode with: name a module or an app together with --store.")
    report = _report(locked, locked.check(present), contracts, asyncio.run(_examined(store, contracts)) if store else [])
    _print(report, form, out)
    if report.errors:
        raise typer.Exit(1)


def _present(target: str) -> tuple[FileDescriptorSet, list[Contract]]:
    """Return the descriptors of a target, and its contracts where they are Python's."""
    if target.endswith(BINARY):
        return _from_file(Path(target)), []
    from linkspan.cli.contract_target import load_contracts  # noqa: PLC0415 - only here
    from linkspan.contracts.descriptors import descriptor_set, with_imports  # noqa: PLC0415 - only here

    contracts, _ = load_contracts(target)
    return descriptor_set(contracts), with_imports(contracts)


def _from_file(path: Path) -> FileDescriptorSet:
    """Read what `buf build -o x.binpb` or `protoc --include_imports -o x.binpb` has written."""
    from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet  # noqa: PLC0415 - only here

    try:
        found = FileDescriptorSet.from_binary(path.read_bytes())
    except OSError as error:
        raise SetupError(f"The file '{path}' cannot be read ({error.strerror}): correct the path.") from error
    except Exception as error:
        raise SetupError(f"The file '{path}' is no descriptor set: write it with `buf build -o {path.name}`.") from error
    if not found.file:
        raise SetupError(f"The file '{path}' has no contract in it: write it with `buf build -o {path.name}`.")
    return found


# --- what is stored --------------------------------------------------------------------------------


async def _examined(where: str, contracts: Sequence[Contract]) -> list[tuple[str, Examined]]:
    from linkspan.cli.target import load_app, opened_stores  # noqa: PLC0415 - only here
    from linkspan.contracts.stored import examine, types_of  # noqa: PLC0415 - only here
    from linkspan.runtime import system  # noqa: PLC0415 - only here
    from linkspan.stores import open_store  # noqa: PLC0415 - only here

    types = types_of(contracts)
    if "://" not in where:
        async with opened_stores(load_app(where), "") as stores:
            names = {store: name for name, store in stores.items()}
            return [(name, await examine(store, name, types)) for store, name in names.items()]
    store = open_store(where, name=Path(where).stem, runtime=system(), exclusive=False)
    await store.open()
    try:
        return [(Path(where).stem, await examine(store, Path(where).stem, types))]
    finally:
        await store.aclose()


# --- the report ------------------------------------------------------------------------------------


def _report(locked: Lock, checked: Checked, contracts: Sequence[Contract], stored: Sequence[tuple[str, Examined]]) -> Report:
    from linkspan.contracts.compat import RULES  # noqa: PLC0415 - only here
    from linkspan.contracts.places import places  # noqa: PLC0415 - only here
    from linkspan.contracts.report import Report, Topic, item_of  # noqa: PLC0415 - only here
    from linkspan.contracts.stored import STORED  # noqa: PLC0415 - only here

    known: dict[str, Place] = places(contracts) if checked.findings else {}
    items = [item_of(finding, known) for finding in checked.findings]
    items += [item for _, each in stored for item in each.items]
    counts = [
        {"store": name, "place": place, "type": type_, "count": count}
        for name, each in stored
        for (place, type_), count in sorted(each.counts.items())
    ]
    facts: dict[str, Any] = {"versions": list(checked.versions), "accepted": checked.accepted, "unlocked": checked.unlocked}
    topics = (*(Topic(rule.id, rule.says, rule.instead, rule.level) for rule in RULES), *STORED)
    notes = [*_about_stores(stored, counts), _summary(items, checked, locked)]
    return Report(items, notes, facts | ({"stored": counts} if stored else {}), topics)


def _about_stores(stored: Sequence[tuple[str, Examined]], counts: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"{each['count']} in {each['place']} of {each['store']}: {each['type'] or '(unreadable headers)'}" for each in counts]
    return lines + [f"Nothing is stored in {name}." for name, each in stored if not each.counts]


def _summary(items: Sequence[Any], checked: Checked, locked: Lock) -> str:
    errors = sum(item.topic.level == "error" for item in items)
    wrong = f"{_many(errors, 'error')}, {_many(len(items) - errors, 'warning')}"
    if not checked.versions:
        return f"{wrong}. No version is locked in '{locked.folder}': only what is stored was looked at."
    parts = [f"{wrong} against {_many(len(checked.versions), 'locked version')}"]
    if checked.accepted:
        parts.append(f"{checked.accepted} accepted before")
    if checked.unlocked:
        parts.append(f"not locked yet since version {checked.versions[-1]}: {_many(len(checked.unlocked), 'change')}")
    return "; ".join(parts) + "."


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _print(report: Report, form: Form, out: Path | None = None) -> None:
    from linkspan.contracts.report import FORMS  # noqa: PLC0415 - only here

    colour = out is None and sys.stdout.isatty() and not ({"CI", "NO_COLOR"} & set(os.environ))
    text = FORMS[form.value](report, colour=colour)
    if out is None:
        typer.echo(text, nl=False, color=colour)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"'{out}' cannot be written ({error.strerror}): name another file with --out.") from error
