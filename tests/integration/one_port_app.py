"""An app for other servers to run: `asgi` in this module."""

from __future__ import annotations

import os
from pathlib import Path

from tests.unit.app_streams import numbers_service, streams_app

app = streams_app(Path(os.environ["ONE_PORT_FOLDER"]), numbers_service())
asgi = app.asgi()
