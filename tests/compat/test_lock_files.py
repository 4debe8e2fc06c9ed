"""Locked versions are files that buf reads, and about which it says what we say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.contracts.descriptors import descriptor_set
from linkspan.contracts.lock import Lock
from tests.compat.conftest import by_buf
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = """
class Status(Enum):
    NONE = 0
    OPEN = 1
class Order(Event):
    id: str = field(1, key=True)
    mail: str = field(2, pii=True)
    at: Timestamp | None = field(3, default=None)
    status: Status = field(4)
    tags: dict[str, int] = mapping(5)
    pay: Oneof[Literal["card"], str] | Oneof[Literal["iban"], str] | None = oneof(card=6, iban=7)
class Ask(Message):
    id: str = field(1)
class Orders(ServiceContract):
    get = query(Ask, Order0)
    watch = query(Ask, stream(Order0))
    place = command(Ask, Order0, answer='now', expires=9.0)
"""
HEAD = "class Order0(Message):\n    id: str = field(1)\n"
RETYPED = BEFORE.replace("mail: str = field(2, pii=True)", "mail: bytes = field(2, pii=True)")
AFTER = RETYPED.replace("OPEN = 1", "LIVE = 1").replace("watch", "see")


def test_buf_reads_locked_versions_and_agrees(buf: str, tmp_path: Path) -> None:
    for text in (BEFORE, AFTER):
        made = declare(HEAD + text, package="lockfiles.v1", module="lockfiles").contract
        Lock.read(tmp_path).add(descriptor_set([made]), reason="never released")
    lock = Lock.read(tmp_path)
    ours = {each.rule for each in lock.versions[1].accepted}
    assert ours == {"ENUM_VALUE_SAME_NAME", "FIELD_WIRE_JSON_COMPATIBLE_TYPE", "RPC_NO_DELETE"}
    assert by_buf(buf, tmp_path / "0001.binpb", tmp_path / "0002.binpb") == ours
    assert by_buf(buf, tmp_path / "0002.binpb", tmp_path / "0002.binpb") == set()
