"""Other people's ASGI servers and applications around an app, in the loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Server(uvicorn.Server):
    """uvicorn that leaves the test's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def uvicorn_serving(application: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI application with plain uvicorn; yields its address, ends as uvicorn ends at SIGTERM."""
    server = Server(uvicorn.Config(application, **{"host": "127.0.0.1", "port": 0, "log_config": None, **options}))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                break
            await asyncio.sleep(0.005)
        if task.done():
            task.result()
            raise RuntimeError("uvicorn did not start")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
