"""Contracts made and changed at random, from a seed: what nobody thought of writing into the corpus."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

SCALARS = ("int32", "uint32", "sint32", "fixed32", "int64", "uint64", "fixed64", "sfixed64", "bool", "string", "bytes", "float", "double")
LEVELS = ("IDEMPOTENCY_UNKNOWN", "NO_SIDE_EFFECTS", "IDEMPOTENT")


@dataclass
class Field:
    name: str
    type: str
    label: str = ""
    oneof: str = ""


@dataclass
class Body:
    """A message or an enum; `members` are fields, or names of values, by number."""

    members: dict[int, Field] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


@dataclass
class Version:
    messages: dict[str, Body]
    enums: dict[str, Body]
    methods: dict[str, list[str]]

    def types(self) -> list[str]:
        return [*self.messages, *self.enums]

    def text(self) -> str:
        """Return the body of a proto3 file. `Kept` and `Steady` keep the package from losing its last message and enum (ADR 11)."""
        enums = [_enum(name, body) for name, body in self.enums.items()]
        messages = [_message(name, body, self.types()) for name, body in self.messages.items()]
        methods = [_method(name, parts, list(self.messages)) for name, parts in self.methods.items()]
        fixed = ["message Kept {}", "enum Steady { STEADY = 0; }"]
        return "\n".join([*fixed, *enums, *messages, "service Things {", *methods, "}"])


def _reserved(body: Body) -> str:
    numbers = sorted(body.numbers - set(body.members))
    names = sorted(body.names - {member.name for member in body.members.values()})
    text = f"reserved {', '.join(map(str, numbers))}; " if numbers else ""
    return text + (f"reserved {', '.join(f'{chr(34)}{name}{chr(34)}' for name in names)}; " if names else "")


def _enum(name: str, body: Body) -> str:
    values = " ".join(f"{name.upper()}_{value.name.upper()} = {number};" for number, value in sorted(body.members.items()))
    kept = _reserved(Body(body.members, body.numbers, set()))
    return f"enum {name} {{ {values} {kept}}}"


def _message(name: str, body: Body, types: list[str]) -> str:
    alone, grouped = [], dict[str, list[str]]()
    for number, each in sorted(body.members.items()):
        kind = each.type if each.type in SCALARS or each.type in types else "Kept"
        if each.oneof:
            grouped.setdefault(each.oneof, []).append(f"{kind} {each.name} = {number};")
        elif each.label == "map":
            alone.append(f"map<string, {kind}> {each.name} = {number};")
        else:
            alone.append(f"{each.label} {kind} {each.name} = {number};")
    oneofs = [f"oneof {oneof} {{ {' '.join(members)} }}" for oneof, members in grouped.items()]
    return f"message {name} {{ {' '.join([*alone, *oneofs])} {_reserved(body)}}}"


def _method(name: str, parts: list[str], messages: list[str]) -> str:
    takes, answers, client, server, level = parts
    takes, answers = (each if each in messages else "Kept" for each in (takes, answers))
    return f"  rpc {name}({client} {takes}) returns ({server} {answers}) {{ option idempotency_level = {level}; }}"


# --- at random -------------------------------------------------------------------------------------


def made(chance: Random) -> Version:
    version = Version({}, {}, {})
    for name in ("Status", "Size"):
        version.enums[name] = Body({number: Field(f"v{number}", "") for number in range(chance.randint(1, 4))}, {chance.randint(10, 12)})
    for name in ("Order", "Line", "Box"):
        version.messages[name] = Body({}, {chance.randint(20, 22)}, {f"old{chance.randint(0, 2)}"})
    for body in version.messages.values():
        for number in chance.sample(range(1, 12), chance.randint(2, 6)):
            body.members[number] = _field(chance, version, f"f{number}")
    for name in ("Get", "Put", "Watch"):
        version.methods[name] = _parts(chance, version)
    return version


def _field(chance: Random, version: Version, name: str) -> Field:
    kind = chance.choice((*SCALARS, *version.types(), *version.types()))
    return Field(name, kind, chance.choice(("", "", "repeated", "optional", "map")), chance.choice(("", "", "", "by", "at")))


def _parts(chance: Random, version: Version) -> list[str]:
    messages = list(version.messages)
    return [
        chance.choice(messages),
        chance.choice(messages),
        chance.choice(("", "stream")),
        chance.choice(("", "stream")),
        chance.choice(LEVELS),
    ]


def changed(version: Version, chance: Random) -> Version:
    """Return a version after a few changes."""
    after = deepcopy(version)
    for _ in range(chance.randint(1, 4)):
        chance.choice((_change_field, _change_field, _change_field, _change_enum, _change_method, _change_types, _change_reserved))(
            after, chance
        )
    return after


def _change_field(after: Version, chance: Random) -> None:
    if not after.messages:
        return
    body = chance.choice(list(after.messages.values()))
    if not body.members:
        return
    number = chance.choice(sorted(body.members))
    each = body.members[number]
    match chance.randint(0, 5):
        case 0:
            del body.members[number]
            body.numbers |= {number} if chance.random() < 0.5 else set()
            body.names |= {each.name} if chance.random() < 0.5 else set()
        case 1:
            each.name = f"{each.name}x"
        case 2:
            each.type = chance.choice((*SCALARS, *after.types()))
        case 3:
            each.label = chance.choice(("", "repeated", "optional", "map"))
        case 4:
            each.oneof = chance.choice(("", "by", "at"))
        case _:
            body.members[chance.randint(13, 19)] = _field(chance, after, f"n{chance.randint(0, 999)}")


def _change_enum(after: Version, chance: Random) -> None:
    if not after.enums:
        return
    body = chance.choice(list(after.enums.values()))
    number = chance.randint(1, 4)
    if number in body.members and chance.random() < 0.5:
        del body.members[number]
        body.numbers |= {number} if chance.random() < 0.5 else set()
    elif number not in body.numbers:
        body.members[number] = Field(f"w{number}", "")


def _change_method(after: Version, chance: Random) -> None:
    name = chance.choice(("Get", "Put", "Watch"))
    if chance.random() < 0.3:
        after.methods.pop(name, None)
    elif name in after.methods and after.messages:
        part = chance.randint(0, 4)
        after.methods[name][part] = _parts(chance, after)[part]


def _change_types(after: Version, chance: Random) -> None:
    held = chance.choice((after.messages, after.enums))
    if held:
        del held[chance.choice(sorted(held))]


def _change_reserved(after: Version, chance: Random) -> None:
    for body in (*after.messages.values(), *after.enums.values()):
        if chance.random() < 0.5:
            body.numbers, body.names = set(), set(sorted(body.names)[1:])
