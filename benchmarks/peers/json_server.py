"""FastAPI as the receiver of JSON calls: one event a request, checked by pydantic, nothing stored."""

from __future__ import annotations

import asyncio

import uvicorn
from fastapi import FastAPI

from benchmarks import worker
from benchmarks.harness import free_port
from benchmarks.peers.faststream_event import OrderPlaced  # noqa: TC001 - FastAPI reads the annotation at run time

app = FastAPI()


@app.post("/orders")
async def take(event: OrderPlaced) -> dict[str, bool]:
    """Take one event."""
    assert event.cents
    return {"ok": True}


async def start() -> dict[str, int]:
    """Listen, with uvicorn's fastest parts."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, http="httptools", log_level="warning", access_log=False))
    worker.kept.add(asyncio.get_running_loop().create_task(server.serve()))
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    return {"port": port}


if __name__ == "__main__":
    worker.main({"start": start})
