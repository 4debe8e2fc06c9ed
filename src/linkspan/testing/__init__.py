"""What users test with: a whole app in a test, a clock of one's own, crash points, histories; and the suites that adapters pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linkspan.testing.blob_contract import BlobPlaceContract
    from linkspan.testing.clock import FakeClock, fake_runtime
    from linkspan.testing.crash import CrashPoint, Recorder, crash_at
    from linkspan.testing.run import Run, settled
    from linkspan.testing.simulation import World

__all__ = ["BlobPlaceContract", "CrashPoint", "FakeClock", "Recorder", "Run", "World", "crash_at", "fake_runtime", "settled"]

_LAZY = {
    "BlobPlaceContract": "blob_contract",
    "CrashPoint": "crash",
    "FakeClock": "clock",
    "Recorder": "crash",
    "Run": "run",
    "World": "simulation",
    "crash_at": "crash",
    "fake_runtime": "clock",
    "settled": "run",
}


def __getattr__(name: str) -> Any:
    # A child that is about to die at a crash point loads nothing for it.
    if name not in _LAZY:
        raise AttributeError(f"module 'linkspan.testing' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415 - as above

    return getattr(import_module(f"linkspan.testing.{_LAZY[name]}"), name)
