"""`linkspan dead list|show|explain|audit|status`: looking changes nothing, but a look at personal data is audited."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linkspan.cli.dead_advice import advice
from linkspan.cli.dead_target import AsJson, Number, Service, Target, Who, content_class, decoded, found_letter, one_store, the_service
from linkspan.cli.singly import batch_content
from linkspan.cli.table import moment, show
from linkspan.cli.target import chosen, load_app, opened_stores
from linkspan.errors import Code, Error, SetupError
from linkspan.letters.desk import Choice, Desk, holder
from linkspan.message import redacted
from linkspan.ports import LetterState
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.letters.desk import AuditEntry, LetterGroup
    from linkspan.ports import Letter

__all__ = ["add_to"]


def add_to(commands: typer.Typer) -> None:
    """Add the commands that look."""
    commands.command("list", epilog="Examples: linkspan dead list hello:app, linkspan dead list hello:app --group 1f2e3d4c5b6a")(list_)
    commands.command("show", epilog="Example: linkspan dead show hello:app 3 --service mail")(show_one)
    commands.command("explain", epilog="Example: linkspan dead explain hello:app 3 --service mail")(explain)
    commands.command("audit", epilog="Example: linkspan dead audit hello:app --service mail")(audit)
    commands.command("status", epilog="Example: linkspan dead status hello:app")(status)


def list_(  # noqa: PLR0913 - options of a command
    target: Target,
    service: Service = "",
    *,
    group: Annotated[str, typer.Option("--group", help="Only this group; its letters one by one.", metavar="GROUP")] = "",
    key: Annotated[str, typer.Option("--key", help="Only this key; its letters one by one.", metavar="KEY")] = "",
    type_: Annotated[str, typer.Option("--type", help="Only messages of this type.", metavar="TYPE")] = "",
    code: Annotated[str, typer.Option("--code", help="Only errors of this code.", metavar="CODE")] = "",
    letters: Annotated[bool, typer.Option("--letters", help="One by one, in their order, instead of grouped by cause.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Parked and waiting messages too, one by one.")] = False,
    limit: Annotated[int, typer.Option(help="At most this many per service.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, grouped by what went wrong, or one by one."""
    choice = Choice(states=() if everything else (LetterState.DEAD,), group=group, key=key, type=type_, code=code)
    singly = letters or everything or bool(group or key)
    rows = asyncio.run(_listed(load_app(target), service, choice, limit, singly=singly))
    show(rows, as_json=as_json, empty="Nothing is held." if everything else "No dead letters.")


async def _listed(app: App, service: str, choice: Choice, limit: int, *, singly: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with opened_stores(app, service) as stores:
        for name, store in stores.items():
            mine = Choice(name, choice.states, choice.group, choice.key, choice.type, choice.code)
            if singly:
                rows += [_row(letter) for letter in await Desk(store).letters(mine, limit=limit)]
            else:
                rows += [_group_row(group) for group in await Desk(store).groups(mine, limit)]
    return rows


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "service": holder(letter),
        "number": letter.position,
        "state": letter.state.value,
        "type": letter.type or "(unreadable)",
        "key": letter.key,
        "attempts": letter.attempts,
        "code": letter.code or "-",
        "group": letter.fingerprint or "-",
        "since": moment(letter.received),
    }


def _group_row(group: LetterGroup) -> dict[str, Any]:
    return {
        "service": group.service,
        "group": group.group or "-",
        "type": group.type or "(unreadable)",
        "code": group.code or "-",
        "count": group.count,
        "keys": group.keys,
        "behind": group.behind,
        "first": moment(group.first),
        "last": moment(group.last),
        "oldest": group.oldest,
        "error": group.error,
    }


def show_one(  # noqa: PLR0913 - options of a command
    target: Target,
    number: Number,
    service: Service = "",
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Personal data too, unmasked: needs --why, and is audited.")] = False,
    why: Annotated[str, typer.Option("--why", help="The reason for --raw, kept in the audit.", metavar="TEXT")] = "",
    who: Who,
    as_json: AsJson = False,
) -> None:
    """Show one held message: why, since when, and its content with personal data masked."""
    if raw and not why:
        raise SetupError("To see personal data is audited: say why, with --why 'ticket 4711'.")
    app = load_app(target)
    shown = asyncio.run(_shown_one(app, the_service(app, service), number, (who, why) if raw else None))
    _print(shown, as_json=as_json)


def _print(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shown, indent=2, default=str))
    else:
        show([{"field": field, "value": value} for field, value in shown.items()], as_json=False, empty="")


async def _shown_one(app: App, service: str, number: int, raw: tuple[str, str] | None) -> dict[str, Any]:
    async with one_store(app, service) as store:
        letter = await found_letter(store, service, number)
        if raw is not None:
            await Desk(store).note(letter, "show raw", who=raw[0], why=raw[1], at=system().clock.now())
        origin = await Desk(store).origin(letter)
    shown = _shown(app, letter)
    if origin:
        shown["corrects"] = origin
    if raw is not None:
        shown["content"] = _raw(app, letter)
    return shown


def _shown(app: App, letter: Letter) -> dict[str, Any]:
    return {
        **_row(letter),
        "id": letter.id,
        "source": letter.source,
        "topic": letter.topic.partition(":")[2],
        "error": letter.error,
        "first failed": moment(letter.first_failed),
        "last failed": moment(letter.last_failed),
        "due": moment(letter.due) if letter.state is LetterState.PARKED else "-",
        "redrives": letter.redrives,
        "content": _content(app, letter),
    }


def _content(app: App, letter: Letter) -> str:
    cls = content_class(app, letter)
    if cls is None:
        return batch_content(letter) or f"{len(letter.data)} bytes of a type that this service does not handle"
    try:
        return redacted(decoded(cls, letter))
    except Error as error:
        if error.code is Code.FAILED_PRECONDITION:
            return error.message
        return f"{len(letter.data)} bytes that cannot be decoded"


def _raw(app: App, letter: Letter) -> str:
    cls = content_class(app, letter)
    try:
        if cls is not None:
            text: str = decoded(cls, letter).to_json()
            return text
    except Error:
        pass
    return f"base64 {base64.b64encode(letter.data).decode()}"


# --- explain ---------------------------------------------------------------------------------------


def explain(target: Target, number: Number, service: Service = "", *, as_json: AsJson = False) -> None:
    """Explain one held message: what failed, where, how often and when, what waits behind it, and what to do next."""
    app = load_app(target)
    found = asyncio.run(_explained(app, the_service(app, service), number))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_told(found)))


async def _explained(app: App, service: str, number: int) -> dict[str, Any]:
    async with one_store(app, service) as store:
        letter = await found_letter(store, service, number)
        rounds = await Desk(store).rounds(letter)
        count, behind = await Desk(store).behind(letter)
    tries = [
        {"attempts": each.attempts, "at": moment(each.at), "code": each.code, "error": each.error, "where": each.stack.splitlines()}
        for each in rounds
    ]
    return {
        "number": letter.position,
        "service": service,
        "state": letter.state.value,
        "type": letter.type or "(unreadable)",
        "id": letter.id,
        "key": letter.key,
        "code": letter.code,
        "error": letter.error,
        "where": rounds[-1].stack.splitlines() if rounds else [],
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "tries": tries,
        "behind": count,
        "next behind": [{"number": each.position, "type": each.type, "since": moment(each.received)} for each in behind],
        "content": _content(app, letter),
        "next": advice(letter),
    }


def _told(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['type']} {found['id']}, key '{found['key']}', is {found['state']} in '{found['service']}' (number {found['number']}).",
        f"  {found['content']}",
        f"What failed: {found['code'] or '-'}: {found['error'] or '-'}",
    ]
    lines += ["Where:", *(f"  {frame}" for frame in found["where"])] if found["where"] else []
    lines.append(f"Tried {found['attempts']} times, redriven {found['redrives']} times:")
    lines += [f"  {each['at']}  after {each['attempts']} attempts: {each['code']}: {each['error']}" for each in found["tries"]]
    lines.append(f"Behind it: {found['behind']} of the same key.")
    lines += [f"  {each['number']}  {each['type']}  since {each['since']}" for each in found["next behind"]]
    return [*lines, f"Next: {found['next']}"]


# --- audit and status ------------------------------------------------------------------------------


def audit(
    target: Target,
    service: Service = "",
    *,
    limit: Annotated[int, typer.Option(help="At most this many per service.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show who did what to which letter, when and why, newest first."""
    app = load_app(target)
    show(asyncio.run(_audit(app, service, limit)), as_json=as_json, empty="Nothing was done yet.")


async def _audit(app: App, service: str, limit: int) -> list[dict[str, Any]]:
    async with opened_stores(app, service) as stores:
        return [_audit_row(name, entry) for name, store in stores.items() for entry in await Desk(store).audit(name, limit)]


def _audit_row(service: str, entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": moment(entry.at),
        "service": service,
        "action": entry.action,
        "who": entry.who,
        "why": entry.why,
        "number": entry.letter or "-",
        "type": entry.type or "-",
        "key": entry.key or "-",
        "id": entry.id,
        "group": entry.group or "-",
    }


def status(target: Target, service: Service = "", *, as_json: AsJson = False) -> None:
    """Show how much each service holds, and how near that is to its bounds."""
    app = load_app(target)
    show(asyncio.run(_status(app, service)), as_json=as_json, empty="")


async def _status(app: App, service: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with opened_stores(app, service) as stores:
        for name, store in stores.items():
            found = await Desk(store).depths(name)
            limits = chosen(app, name)[0].limits
            states = {state.value: found.states.get(state.value, 0) for state in LetterState}
            key, count = found.fullest
            full = found.letters >= limits.held or count >= limits.held_per_key
            rows.append(
                {
                    "service": name,
                    **states,
                    "held": f"{found.letters} of {limits.held}",
                    "keys": found.keys,
                    "fullest key": f"{key}: {count} of {limits.held_per_key}" if key else "-",
                    "oldest": moment(found.oldest),
                    "state": "full: its topic waits" if full else "ok",
                }
            )
    return rows
