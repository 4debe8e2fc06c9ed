"""Keep the traces of an app that the command line runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.telemetry.record import Recorder, ring_file

if TYPE_CHECKING:
    from linkspan.app import App

__all__ = ["recorded"]


def recorded(app: App, share: float = 1.0) -> Recorder:
    """Put a recorder around an app that is about to start; whoever runs it closes the recorder afterwards."""
    recorder = Recorder(ring_file(app.data), app.runtime.clock, share=share)
    app.wrap(recorder)
    recorder.start()
    return recorder
