"""Read a system-call trace of nats-server: was each message written, then synced, and only then acknowledged?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS = "openat,write,writev,pwrite64,fsync,fdatasync"
"""What strace is asked for: `strace -f -yy -s 4096 -e trace=CALLS`."""

_SYNCS = {"fsync", "fdatasync"}
_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<handle>\d+)?(?:<(?P<file>(?:[^<>]|<[^<>]*>|->)*)>)?(?P<rest>.*)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>")
_MARK = re.compile(r"mark-(\d+)-")
_ACK = re.compile(r'\\"seq\\":(\d+)')


@dataclass(slots=True)
class Order:
    """At which line of the trace a message was on its way to the file, safe there, and acknowledged."""

    written: int = 0
    file: str = ""
    synced: int = 0
    acknowledged: int = 0

    @property
    def sound(self) -> bool:
        return 0 < self.written < self.synced < self.acknowledged


def orders(lines: Iterable[str], count: int) -> list[Order]:
    """Return what became of the messages `mark-1-` to `mark-<count>-`, the only ones of a stream, published one after the other."""
    reader = _Reader(count)
    for line, text in enumerate(lines, 1):
        resumed = _RESUMED.match(text)
        call = _CALL.match(text)
        if resumed is not None:
            reader.resumed(resumed["pid"], resumed["name"], line)
        elif call is not None:
            reader.called(call, line, finished="unfinished" not in text)
    return reader.found


class _Reader:
    def __init__(self, count: int) -> None:
        self.found = [Order() for _ in range(count)]
        self._syncing: dict[str, str] = {}

    def resumed(self, pid: str, name: str, line: int) -> None:
        if name in _SYNCS and pid in self._syncing:
            self._synced(self._syncing.pop(pid), line)

    def called(self, call: re.Match[str], line: int, *, finished: bool) -> None:
        file, rest = call["file"] or "", call["rest"]
        if call["name"] in _SYNCS:
            if finished:
                self._synced(file, line)
            else:
                self._syncing[call["pid"]] = file
        elif file.endswith(".blk"):
            for mark in _MARK.findall(rest):
                order = self.found[int(mark) - 1]
                order.written, order.file = order.written or line, file
        elif file.startswith(("TCP", "socket")):
            for number in _ACK.findall(rest):
                order = self.found[int(number) - 1]
                order.acknowledged = order.acknowledged or line

    def _synced(self, file: str, line: int) -> None:
        for order in self.found:
            if order.written and not order.synced and order.file == file:
                order.synced = line
