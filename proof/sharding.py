"""A row that is proven in shards: each is appended to a file as it ends, and what is there already is not done again."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Shards"]


@dataclass(frozen=True, slots=True)
class Shards:
    """So many events, in shards of so many; none is begun after `minutes`."""

    events: int
    shard: int
    minutes: float
    resume: Path | None
    out: Path | None

    @classmethod
    def of(cls, program: str, about: str | None, arguments: Sequence[str] | None, *, events: int, shard: int) -> Shards:
        """Read a program's options."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {program}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--events", type=int, default=events, help=f"how many in all (default: {events})")
        parser.add_argument("--shard", type=int, default=shard, help=f"how many of one system (default: {shard})")
        parser.add_argument("--minutes", type=float, default=90.0, help="begin no shard after so many minutes (default: 90)")
        parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
        parser.add_argument("--out", type=Path, help="where the JSON summary goes")
        options = parser.parse_args(arguments)
        return cls(options.events, options.shard, options.minutes, options.resume, options.out)

    def prove(self, one: Callable[[int, int], dict[str, Any]], summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]) -> int:
        """Run what is left by `one(number, events)`, write the row; return the exit code, 1 where a promise was broken."""
        end = time.monotonic() + self.minutes * 60
        done = self._done()
        missing = [number for number in range(1, -(-self.events // self.shard) + 1) if number not in done]
        for number in missing:
            if time.monotonic() > end:
                break
            done[number] = {"shard": number, **one(number, min(self.shard, self.events - (number - 1) * self.shard))}
            print(json.dumps(done[number]), flush=True)
            if self.resume is not None:
                with self.resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[number]) + "\n")
        finished = len(done) * self.shard >= self.events
        row = summary([*done.values()]) if finished else {"unfinished": f"{len(done) * self.shard} of {self.events} events: run again"}
        if self.out is not None:
            self.out.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(row, indent=2))
        return 0 if row.get("holds", True) else 1

    def not_run(self, reason: str) -> int:
        """Write a row that says why nothing was tried."""
        if self.out is not None:
            self.out.write_text(json.dumps({"not_run": reason}) + "\n", encoding="utf-8")
        print(f"not run: {reason}")
        return 0

    def _done(self) -> dict[int, dict[str, Any]]:
        if self.resume is None or not self.resume.exists():
            return {}
        lines = [line for line in self.resume.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        return {found["shard"]: found for found in map(json.loads, lines)}
