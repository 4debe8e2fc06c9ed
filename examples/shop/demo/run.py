"""One run: customers order, faults come in between, everything settles, and the books are compared."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.shop.demo.faults import Faults, saboteur
from examples.shop.demo.feed import Customers
from examples.shop.demo.processes import Fleet, fleet
from examples.shop.demo.show import Progress, say
from examples.shop.reconcile import SERVICES, Reconciliation, reconcile
from examples.shop.reconcile_messages import read_traffic
from linkspan import Client
from linkspan.brokers.embedded import embedded_nats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from examples.shop.demo.feed import Call
    from examples.shop.order_book import OrderBook
    from linkspan.brokers.embedded import EmbeddedServer

    Visit = Callable[["Run", Fleet, EmbeddedServer], Awaitable[None]]

__all__ = ["Run", "run_shop"]

RATE = 120.0
"""Requests a second that customers make at most, unless that took longer than `LONGEST` seconds."""
LONGEST = 60.0
ROUNDS = 12
"""How often copies of messages are sent, over the whole run."""
STUCK = 60.0
"""Seconds without any progress until waiting for messages is given up."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run leaves behind, beside the databases in its folder."""

    begin: float
    calls: list[Call]
    faults: Faults
    held: int
    refused_by_inbox: int
    parked: int
    result: Reconciliation

    @property
    def suppressed(self) -> int:
        """Count the copies without an effect: the broker stopped them, or they were acknowledged and no ledger shows them."""
        return max(0, self.faults.injected - self.result.double_effects)


async def run_shop(book: OrderBook, folder: Path, seed: int, visit: Visit | None = None) -> Run:
    """Run the book in fresh databases in `folder`. `visit` sees the result while the shop is still open, and keeps it open."""
    say("Start NATS and six services, each with a process and a database of its own")
    async with embedded_nats(folder / "nats") as server, fleet(folder) as services, saboteur(server, seed) as faults:
        addresses = {f"shop.{name}.v1": services[name].address for name in ("storefront", "orders")}
        async with Client(addresses=addresses, name="customer") as client:
            customers, script = Customers(client), Script(services, faults, len(book.requests()))
            await customers.place(book, script.step)
            await script.end()
        await _quiet(folder, faults)
        if visit is not None:
            run = _result(script, customers, reconcile(book, folder, faults.poisoned))
            await visit(run, services, server)
            return run
        say("Close the shop")
    return _result(script, customers, reconcile(book, folder, faults.poisoned))


def _result(script: Script, customers: Customers, result: Reconciliation) -> Run:
    services = script.services
    return Run(script.begin, customers.calls, script.faults, script.held, services.seen("duplicates"), services.seen("parked"), result)


@dataclass(slots=True)
class Script:
    """What happens when, by the share of requests placed; and the pace of the customers."""

    services: Fleet
    faults: Faults
    total: int
    held: int = 0
    begin: float = field(default_factory=time.time)
    running: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    bar: Progress = field(init=False)
    due: list[tuple[int, Callable[[], Coroutine[None, None, None]]]] = field(init=False)

    def __post_init__(self) -> None:
        """Lay down the order of events."""
        self.bar = Progress("orders and returns placed", self.total)
        events = [(0.2, self._slow), (0.4, self.faults.poison), (0.6, self._kill)]
        copies = [((number + 1) / (ROUNDS + 1), self._copies) for number in range(ROUNDS)]
        self.due = [(int(share * self.total), event) for share, event in sorted([*events, *copies], key=lambda due: due[0])]

    async def step(self, placed: int) -> None:
        """Show progress, let loose what is due, and keep the pace."""
        self.bar.show(placed)
        while self.due and placed >= self.due[0][0]:
            self.running.append(asyncio.create_task(self.due.pop(0)[1]()))
        await asyncio.sleep(max(0.0, self.begin + placed / max(RATE, self.total / LONGEST) - time.time()))

    async def end(self) -> None:
        """Wait for what is still going wrong."""
        self.bar.end()
        await asyncio.gather(*self.running)

    async def _slow(self) -> None:
        await self.faults.slow(self.services["inventory"], 2.0)

    async def _kill(self) -> None:
        self.held = await self.faults.kill(self.services["payments"], "shop_payments_v1_commands")

    async def _copies(self) -> None:
        await self.faults.duplicate(max(5, self.total // 100))


async def _quiet(folder: Path, faults: Faults) -> None:
    """Wait until no message is under way anywhere: none in an outbox, none with the broker, none held for another try."""
    databases = {name: folder / f"{name}.db" for name in SERVICES}
    bar = Progress("messages handled", 1)
    still, last, calm = time.monotonic(), (-1, -1), 0
    while time.monotonic() - still < STUCK:
        waiting = await faults.under_way()
        traffic = read_traffic(databases)
        waiting += sum(traffic.waiting.values()) + sum(traffic.letters.values()) - traffic.dead_letters
        bar.show(traffic.deliveries, traffic.deliveries + waiting)
        calm = calm + 1 if waiting == 0 and traffic.deliveries == last[1] else 0
        if calm > 1:
            break
        if (waiting, traffic.deliveries) != last:
            still, last = time.monotonic(), (waiting, traffic.deliveries)
        await asyncio.sleep(0.3)
    bar.end()
