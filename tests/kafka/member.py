"""A member of a group in a process of its own, which settles nothing and is killed: URL and topic are its arguments."""

from __future__ import annotations

import asyncio
import sys

from linkspan.brokers import broker_for
from linkspan.runtime import system


async def main(url: str, topic: str) -> None:
    broker = broker_for(url, system())
    await broker.open()
    await broker.subscribe(topic, "g", lambda delivery: print(delivery.data.decode(), flush=True), prefetch=100)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
