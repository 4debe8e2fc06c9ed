"""A correction: a dead letter's content changed by a person, held to its contract, as a copy with an id of its own.

The copy stands in the original's place, so in the order of its key, and names it as its cause. What was there is kept, marked as
resolved by the copy; its id never has an effect any more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from linkspan import envelope as envelopes
from linkspan.envelope import Envelope
from linkspan.errors import Code, Error
from linkspan.letters.desk import audited, kept_away
from linkspan.message import decode_json, key_of, traits_of, type_name
from linkspan.validation import check_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from linkspan.ports import Letter, Store, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = ["changed", "copy_headers", "replace_letter", "values_of"]


def values_of(cls: type[Any], settings: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` settings, `line.count=3` for a field of a field. Raises `Error(INVALID_ARGUMENT)`, also for personal data."""
    found: dict[str, Any] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise Error(Code.INVALID_ARGUMENT, f"The setting '{path[:50]}' cannot be read: write field=value.")
        names = path.split(".")
        _refuse_personal(cls, names)
        place = found
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = value
    return found


def _refuse_personal(cls: type[Any], names: Sequence[str]) -> None:
    desc = cls.desc()
    for name in names:
        if desc is None:
            raise Error(Code.INVALID_ARGUMENT, f"'{'.'.join(names)}' leads into a field that has no fields: look at the contract.")
        field = _field(desc, name)
        if _member(field) in traits_of(desc.type).pii:
            text = f"Field '{name}' holds personal data, and others see the words of a command: give it in a file with --from."
            raise Error(Code.INVALID_ARGUMENT, text)
        desc = getattr(field.value, "message", None)


def _field(desc: Any, name: str) -> Any:
    for field in desc.fields:
        if name in {field.name, field.local_name, field.json_name}:
            return field
    known = ", ".join(field.name for field in desc.fields)
    raise Error(Code.INVALID_ARGUMENT, f"'{desc.type_name}' has no field '{name[:50]}': it has {known}.")


def _member(field: Any) -> str:
    """Return the attribute that holds a field: its own, or that of its oneof."""
    group = getattr(field.value, "oneof", None)
    return str(field.local_name if group is None else group.local_name)


def changed(cls: type[Any], old: Any | None, values: Mapping[str, Any], *, key: str) -> Any:
    """Return a message with fields changed; unknown fields of the old one stay. `old` is None where it could not be read.

    Raises `Error(INVALID_ARGUMENT)` for what the contract does not allow, or another order key: the place in the key's order would
    be a lie.
    """
    desc = cls.desc()
    before: dict[str, Any] = {} if old is None else json.loads(old.to_json(use_proto_field_name=True))
    named = {_field(desc, name).name: value for name, value in values.items()}
    after = _merged(before, named)
    new = _read(cls, after)
    if old is not None:
        whole, new = new, cls.from_binary(old.to_binary())
        for name in named:
            member = _member(_field(desc, name))
            setattr(new, member, getattr(whole, member))
    _check(cls, new, key)
    return new


def _merged(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for name, value in values.items():
        inner = merged.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            merged[name] = _merged(cast("dict[str, Any]", inner), cast("dict[str, Any]", value))
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def _read(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Read values as ProtoJSON: texts as they are, which numbers may be, or else as what they say (`true`, `[1, 2]`)."""
    try:
        return decode_json(cls, json.dumps(values), ignore_unknown_fields=False)
    except Error:
        text = f"The values do not fit '{type_name(cls)}': give each field what its type takes, as in ProtoJSON."
        try:
            return decode_json(cls, json.dumps(_parsed(values)), ignore_unknown_fields=False)
        except Error:
            raise Error(Code.INVALID_ARGUMENT, text) from None


def _parsed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _parsed(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, str) and value[:1] in {"t", "f", "[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _check(cls: type[Any], new: Any, key: str) -> None:
    check = check_of(cls)
    if check is not None:
        check(new)
    own = key_of(new)
    if own is not None and own != key and not key.startswith("~"):
        text = f"The order key of '{type_name(cls)}' cannot be changed: discard this one, and let its sender send another."
        raise Error(Code.INVALID_ARGUMENT, text)


def copy_headers(letter: Letter, new_id: str) -> bytes:
    """Return the headers of a copy: its own id, the original as its cause, everything else as it was."""
    try:
        old = envelopes.read(letter.headers, letter.data)
    except Error:
        old = Envelope(letter.id, letter.source, letter.type, "" if letter.key.startswith("~") else letter.key)
    correlation = old.correlation or letter.id
    new = Envelope(new_id, letter.source, letter.type, old.key, old.trace, old.time, correlation, letter.id, old.expires)
    return envelopes.render(envelopes.prefix(letter.type, letter.source), new)


async def replace_letter(store: Store, letter: Letter, copy: tuple[str, bytes, bytes], *, who: str, why: str, at: float) -> bool:
    """Put a copy `(id, headers, data)` in a dead letter's place, audited, in one transaction; False where it is no dead letter any more."""
    new_id, headers, data = copy
    mine = "position = ? and state = 'dead' and id = ?"
    name = (letter.topic, letter.source, letter.id)
    kept = (
        "insert into linkspan_original (letter, topic, key, source, id, type, headers, data, resolved_by, at) "
        f"select position, topic, key, source, id, type, headers, data, ?, ? from linkspan_letter where {mine}"
    )
    still = f"exists (select 1 from linkspan_letter where {mine})"
    moved = f"update linkspan_attempt set id = ? where topic = ? and source = ? and id = ? and {still}"
    statements: list[Statement] = [
        (kept, (new_id, at, letter.position, letter.id)),
        audited(at, f"edit to {new_id}", who, why, letter.position),
        *kept_away(letter, at),
        (moved, (new_id, *name, letter.position, letter.id)),
        (f"update linkspan_letter set id = ?, headers = ?, data = ? where {mine}", (new_id, headers, data, letter.position, letter.id)),
    ]
    return (await store.apply(statements))[-1] == 1
