"""Linkspan as the server of the unary query: an App with one service, default middleware."""

from __future__ import annotations

from typing import Any

from benchmarks import worker
from benchmarks.ours.hello import orders
from linkspan import App


class Server:
    """The server of one run."""

    def __init__(self) -> None:
        self._app: App | None = None

    async def start(self, directory: str) -> dict[str, Any]:
        """Listen on a free port of the loopback interface; the query needs no broker, so a memory one stands in."""
        self._app = App(orders, broker="memory://", http="127.0.0.1:0", data=directory)
        await self._app.start()
        return {"port": int(self._app.address.rpartition(":")[2])}


if __name__ == "__main__":
    worker.main({"start": Server().start})
