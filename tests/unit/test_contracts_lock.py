"""The folder of locked versions: written once, held against for ever, and trusted only as it was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.canonical import canonical
from linkspan.contracts.descriptors import descriptor_set
from linkspan.contracts.lock import Lock
from linkspan.errors import SetupError
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from pathlib import Path

ORDER = """
class Order(Message):
    id: str = field(1, key=True)
    note: str = field(2)
"""
MORE = f"{ORDER}    price: int = field(3)\n"
LESS = "class Order(Message):\n    id: str = field(1, key=True)\n"


def version(text: str, name: str = "locked") -> FileDescriptorSet:
    return descriptor_set([declare(text, package=f"{name}.v1", module=name).contract])


def locked(folder: Path, *texts: str, reason: str = "nobody used it") -> Lock:
    for text in texts:
        Lock.read(folder).add(version(text), reason=reason)
    return Lock.read(folder)


def broken(lock: Lock, text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(finding.rule.id, finding.versions) for finding in lock.check(version(text)).findings]


# --- writing ---------------------------------------------------------------------------------------


def test_first_lock_writes_one_version_and_an_index(tmp_path: Path) -> None:
    made = Lock.read(tmp_path / "new" / "contracts").add(version(ORDER))
    assert made is not None
    assert sorted(file.name for file in (tmp_path / "new" / "contracts").iterdir()) == ["0001.binpb", "lock.json"]
    index = json.loads((tmp_path / "new" / "contracts" / "lock.json").read_text())
    assert index["format"] == 1
    assert index["versions"][0]["packages"] == ["locked.v1"]
    assert made.changes == ["added package locked.v1: 1 message"]


def test_nothing_is_written_when_nothing_has_changed(tmp_path: Path) -> None:
    lock = locked(tmp_path, ORDER)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert lock.add(version(ORDER)) is None
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_order_of_declarations_changes_no_byte() -> None:
    parts = (
        "class B(Message):\n    y: str = field(2)\n    x: str = field(1)\n    class N(Message):\n        z: str = field(1)\n",
        "class E(Enum):\n    NONE = 0\n    ONE = 1\n",
        (
            "class A(Event):\n    x: str = field(1, key=True)\n    tags: dict[str, str] = mapping(2)\n"
            "    pay: str | None = field(3, default=None)\n"
        ),
        "class Do(ServiceContract):\n    one = query(B, A0)\n    two = command(B, A0)\n",
    )
    head = "class A0(Message):\n    x: str = field(1)\n"
    swapped = parts[0].replace("    y: str = field(2)\n    x: str = field(1)\n", "    x: str = field(1)\n    y: str = field(2)\n")
    one = version(head + "".join(parts), "ordered")
    other = version(
        head + parts[2] + parts[1] + swapped + "class Do(ServiceContract):\n    two = command(B, A0)\n    one = query(B, A0)\n", "ordered"
    )
    assert canonical(one).to_binary() == canonical(other).to_binary()
    assert canonical(canonical(one)).to_binary() == canonical(one).to_binary()


def test_version_holds_all_that_it_imports(tmp_path: Path) -> None:
    locked(tmp_path, "class At(Event):\n    id: str = field(1, key=True)\n    at: Timestamp | None = field(2, default=None)\n")
    files = [file.name for file in FileDescriptorSet.from_binary((tmp_path / "0001.binpb").read_bytes()).file]
    assert files.index("google/protobuf/timestamp.proto") < files.index("locked/v1/locked.proto")
    assert files.index("linkspan/options.proto") < files.index("locked/v1/locked.proto")


def test_change_that_breaks_nothing_is_told_in_words(tmp_path: Path) -> None:
    made = locked(tmp_path, ORDER).add(version(MORE))
    assert made is not None
    assert (made.version, made.changes, made.accepted) == (2, ["added locked.v1.Order.price: int64 = 3"], [])


def test_words_tell_additions_removals_and_changes(tmp_path: Path) -> None:
    before = (
        "class S(Enum):\n    NONE = 0\n    ONE = 1\nclass O(Message):\n    a: str = field(1, pii=True)\n    b: list[int] = repeated(2)\n"
    )
    after = (
        "class S(Enum):\n    NONE = 0\n    TWO = 2\n"
        "class O(Message, reserved=(7, 'old')):\n    a: str = field(1)\n    c: dict[str, S] = mapping(3)\n"
        "    d: str | None = field(4, default=None)\n"
    )
    made = locked(tmp_path, before).add(version(after), reason="never released")
    assert made is not None
    assert made.changes == [
        "changed locked.v1.O: message -> message, reserved 7, 'old'",
        "changed locked.v1.O.a: string = 1, pii -> string = 1",
        "removed locked.v1.O.b: repeated int64 = 2",
        "added locked.v1.O.c: map of string to locked.v1.S = 3",
        "added locked.v1.O.d: optional string = 4",
        "removed locked.v1.S.S_ONE: value 1",
        "added locked.v1.S.S_TWO: value 2",
    ]


# --- breaking --------------------------------------------------------------------------------------


def test_breaking_change_is_not_locked_without_a_reason(tmp_path: Path) -> None:
    lock = locked(tmp_path, ORDER)
    with pytest.raises(SetupError, match="accept them with a reason"):
        lock.add(version(LESS))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0001.binpb", "lock.json"]


def test_accepted_change_is_found_no_more(tmp_path: Path) -> None:
    lock = locked(tmp_path, ORDER, LESS)
    assert [(each.rule, each.reason) for each in lock.versions[1].accepted] == [
        ("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "nobody used it"),
        ("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "nobody used it"),
    ]
    checked = lock.check(version(LESS))
    assert (checked.findings, checked.accepted) == ([], 2)


def test_other_change_of_an_accepted_field_is_found(tmp_path: Path) -> None:
    text, number = ORDER.replace("note: str", "note: int"), ORDER.replace("note: str", "note: float")
    lock = locked(tmp_path, ORDER, text)
    assert broken(lock, text) == []
    assert broken(lock, number) == [("FIELD_WIRE_JSON_COMPATIBLE_TYPE", (2,)), ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", (1,))]


def test_what_was_accepted_once_breaks_the_versions_since(tmp_path: Path) -> None:
    """Back and forth again: the second time it breaks those who came in between."""
    lock = locked(tmp_path, ORDER, LESS, ORDER)
    assert broken(lock, LESS) == [("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", (3,)), ("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", (3,))]


def test_every_version_is_held_against_not_only_the_last(tmp_path: Path) -> None:
    """A field that is removed in one version and given another type in a later one."""
    lock = locked(tmp_path, ORDER, LESS)
    assert broken(lock, ORDER.replace("note: str", "note: int")) == [("FIELD_WIRE_JSON_COMPATIBLE_TYPE", (1,))]


def test_finding_against_many_versions_is_one(tmp_path: Path) -> None:
    lock = locked(tmp_path, ORDER, MORE)
    assert broken(lock, MORE.replace("note: str", "note: int")) == [("FIELD_WIRE_JSON_COMPATIBLE_TYPE", (1, 2))]


def test_warning_needs_no_reason(tmp_path: Path) -> None:
    text = "class P(Message):\n    id: str = field(1, key=True)\nclass O(ServiceContract):\n    place = command(P, P{})\n"
    made = locked(tmp_path, text.format("")).add(version(text.format(", expires=9.0")))
    assert made is not None
    assert made.accepted == []


# --- trust -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda folder: (folder / "0001.binpb").write_bytes(b"\x0a\x00"),
            "0001.binpb' is not what was locked: take it",
        ),
        (lambda folder: (folder / "0001.binpb").unlink(), "0001.binpb' cannot be read"),
        (lambda folder: (folder / "lock.json").write_text("{"), "lock.json' cannot be read"),
        (lambda folder: (folder / "lock.json").write_text('{"format": 2, "versions": 7}'), "has format 2, this linkspan reads 1"),
        (lambda folder: (folder / "lock.json").write_text('{"format": 1, "versions": 7}'), "lock.json' cannot be read"),
        (lambda folder: spoiled(folder, "file", "../x.binpb"), "was changed by hand"),
        (lambda folder: spoiled(folder, "version", 3), "was changed by hand"),
    ],
)
def test_lock_that_is_not_as_written_is_refused(tmp_path: Path, spoil: object, sentence: str) -> None:
    locked(tmp_path, ORDER, MORE)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(SetupError, match=sentence):
        Lock.read(tmp_path)


def spoiled(folder: Path, field: str, value: object) -> None:
    index = json.loads((folder / "lock.json").read_text())
    index["versions"][0][field] = value
    (folder / "lock.json").write_text(json.dumps(index))


def test_crash_between_version_and_index_leaves_the_old_lock(tmp_path: Path) -> None:
    lock = locked(tmp_path, ORDER)
    (tmp_path / "0002.binpb").write_bytes(b"half")
    assert Lock.read(tmp_path).versions == lock.versions
    assert [each.version for each in locked(tmp_path, MORE).versions] == [1, 2]


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "contracts").write_text("a file")
    with pytest.raises(SetupError, match="contracts' cannot be written"):
        Lock(tmp_path / "contracts", (), ()).add(version(ORDER))


def test_deprecated_field_breaks_nothing_and_is_told(tmp_path: Path) -> None:
    after = (
        "class Order(Message):\n    id: str = field(1, key=True)\n    note: str = field(2, deprecated=True)\n"
        "    old: list[str] = repeated(3, deprecated=True)\n    map: dict[str, str] = mapping(4, deprecated=True, pii=True)\n"
    )
    made = locked(tmp_path, ORDER).add(version(after))
    assert made is not None
    assert made.changes == [
        "added locked.v1.Order.map: map of string to string = 4, pii, deprecated",
        "changed locked.v1.Order.note: string = 2 -> string = 2, deprecated",
        "added locked.v1.Order.old: repeated string = 3, deprecated",
    ]
