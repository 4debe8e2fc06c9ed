"""Run one of the shop's services in this process: `python -m examples.shop.serve orders`.

It stops when it is told to (SIGTERM) and when its standard input ends, which the kernel sees to if the demo is killed.
Standard output tells the demo where the service answers, and once a second what its consumers have seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import uvloop

from examples.shop.app import app
from linkspan.telemetry.logs import set_up


async def serve(name: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_reader(sys.stdin.fileno(), lambda: stopped.set() if not os.read(sys.stdin.fileno(), 1024) else None)
    await app.start([name])
    try:
        say(ready=app.address)
        while not stopped.is_set():
            say(**seen(name))
            try:
                await asyncio.wait_for(stopped.wait(), 1.0)
            except TimeoutError:
                continue
    finally:
        consumers = app.running[name].consumers
        await app.aclose()
        say(**{field: sum(getattr(consumer.counts, field) for consumer in consumers) for field in FIELDS})


FIELDS = ("handled", "duplicates", "retried", "parked", "dead")


def seen(name: str) -> dict[str, int]:
    return {field: sum(getattr(consumer.counts, field) for consumer in app.running[name].consumers) for field in FIELDS}


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    set_up("json", "info")
    uvloop.run(serve(sys.argv[1]))
