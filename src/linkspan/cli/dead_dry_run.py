"""`linkspan dead dry-run`: run the real handler for a letter, with nothing committed and nothing published."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import typer

from linkspan.cli.dead_target import AsJson, Number, Service, Target, content_class, found_letter, one_store, the_service
from linkspan.cli.target import chosen, load_app
from linkspan.contract import Contract
from linkspan.errors import Error
from linkspan.message import decode, redacted
from linkspan.rehearsal import rehearsal_of
from linkspan.runtime import system
from linkspan.stores.copies import opened_copy

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.ports import Letter, Outgoing
    from linkspan.rehearsal import Rehearsed

__all__ = ["dry_run"]


def dry_run(target: Target, number: Number, service: Service = "", *, as_json: AsJson = False) -> None:
    """Try a held message with the code that is here: what its handler would write and publish, or how it fails. Nothing of it stays.

    The handler runs on a copy of the database, in this process; commands to other services are not called. Exits with 1 when it fails.
    """
    app = load_app(target)
    found = asyncio.run(_tried(app, the_service(app, service), number))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_told(found)))
    if found["outcome"] == "fails":
        raise typer.Exit(1)


async def _tried(app: App, service: str, number: int) -> dict[str, Any]:
    (declared,) = chosen(app, service)
    async with one_store(app, service) as store:
        letter = await found_letter(store, service, number)
        async with opened_copy(store, url=app.store_url(declared), runtime=system()) as copy:
            if copy is not store:
                await copy.migrate(app.migrations(declared))
            seen = await rehearsal_of(app, declared).run(copy, letter)
    return _shown(app, letter, seen)


def _shown(app: App, letter: Letter, seen: Rehearsed) -> dict[str, Any]:
    error = seen.error
    outcome = "fails" if error is not None else "handled already" if seen.handled else "succeeds"
    return {
        "number": letter.position,
        "type": letter.type,
        "content": _content(app, letter),
        "outcome": outcome,
        "code": error.code.value if error is not None else "",
        "error": error.message if error is not None else "",
        "where": seen.stack.splitlines(),
        "statements": [f"{' '.join(sql.split())}  [{len(args)} values]" for sql, args in seen.statements],
        "publishes": [_message(message) for message in seen.publishes] if error is None else [],
        "calls": seen.called,
    }


def _content(app: App, letter: Letter) -> str:
    cls = content_class(app, letter)
    try:
        return redacted(decode(cls, letter.data)) if cls is not None else "?"
    except Error:
        return f"{len(letter.data)} bytes"


def _message(message: Outgoing) -> dict[str, str]:
    package = message.topic.rpartition(".")[0]
    contract = Contract.of(package)
    classes = {each.desc().type_name: each for each in contract.messages} if contract is not None else {}
    cls = classes.get(f"{package}.{message.name}")
    content = redacted(decode(cls, message.data)) if cls is not None else f"{len(message.data)} bytes"
    return {"topic": message.topic, "type": f"{package}.{message.name}", "key": message.key, "content": content}


def _told(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['type']} (number {found['number']}) {found['outcome']}. Nothing was written, nothing was published."]
    if found["error"]:
        lines.append(f"  {found['code']}: {found['error']}")
    lines += [f"  at {frame}" for frame in found["where"]]
    if found["outcome"] == "handled already":
        lines.append("  Its effect is there: a redrive would only remove it from the dead letters.")
    for title, rows in (
        ("It ran these statements:", found["statements"]),
        ("It would publish:", [f"{each['topic']}  key {each['key']}  {each['content']}" for each in found["publishes"]]),
        ("It called:", found["calls"]),
    ):
        lines += [title, *(f"  {row}" for row in rows)] if rows else []
    return lines
