"""Customers: every order and return of the book goes through the storefront, over HTTP, as fast as it answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from examples.shop.contracts.orders_v1 import GetOrder, Line as OrderLine, Orders
from examples.shop.contracts.storefront_v1 import PlaceOrder, ReturnGoods, Storefront
from examples.shop.demo.show import DemoError
from examples.shop.orders_csv import Invoice
from linkspan import Client, Code, Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from examples.shop.order_book import OrderBook, Refund
    from examples.shop.orders_csv import Line

__all__ = ["Call", "Customers"]

AT_ONCE = 24
"""Customers who wait for an answer at the same time."""
ATTEMPTS = 50
PATIENCE = 2.0
"""Seconds a customer waits before asking again."""


class Call(NamedTuple):
    """One call as its caller saw it: what, when (seconds since 1970), how long in seconds, how it ended."""

    what: str
    at: float
    took: float
    code: str


@dataclass(slots=True)
class Customers:
    """Place all requests of a book; keep what each call took."""

    client: Client
    calls: list[Call] = field(default_factory=list[Call])
    placed: int = 0

    async def place(self, book: OrderBook, progress: Callable[[int], Awaitable[None]]) -> None:
        """Place everything in order of time, some at once; `progress(count)` may pause the feed."""
        requests: Iterator[Invoice | Refund] = iter(book.requests())
        await asyncio.gather(*(self._customer(requests, progress) for _ in range(AT_ONCE)))

    async def _customer(self, requests: Iterator[Invoice | Refund], progress: Callable[[int], Awaitable[None]]) -> None:
        for request in requests:
            await self._insist(request)
            self.placed += 1
            await progress(self.placed)
            if self.placed % 20 == 0 and isinstance(request, Invoice):
                await self._timed("get_order", self._look(request.number))

    async def _insist(self, request: Invoice | Refund) -> None:
        """Ask until there is an answer. A timeout means "no answer", not "failed": ALREADY_EXISTS then says that it was done.

        A return is NOT_FOUND while another customer's call is still placing its order.
        """
        what = "place_order" if isinstance(request, Invoice) else "return_goods"
        for _ in range(ATTEMPTS):
            code = await self._timed(what, self._ask(request))
            if code in {"ok", Code.ALREADY_EXISTS.value}:
                return
            await asyncio.sleep(0.1)
        raise DemoError(f"The storefront did not answer {ATTEMPTS} times: read storefront.log.")

    async def _ask(self, request: Invoice | Refund) -> None:
        lines = list(_lines(request.lines))
        if isinstance(request, Invoice):
            order = PlaceOrder(order_id=request.number, customer=request.customer, lines=lines)
            await self.client.call(Storefront.place_order, order, timeout=PATIENCE)
        else:
            goods = ReturnGoods(refund_id=request.refund_id, order_id=request.order_id, lines=lines)
            await self.client.call(Storefront.return_goods, goods, timeout=PATIENCE)

    async def _look(self, order_id: str) -> None:
        """Look an order up, as a customer does who has just placed it; it may not be there yet."""
        await self.client.call(Orders.get_order, GetOrder(order_id=order_id), timeout=PATIENCE)

    async def _timed(self, what: str, call: Awaitable[None]) -> str:
        at, started, code = time.time(), time.perf_counter(), "ok"
        try:
            await call
        except Error as error:
            if not error.transient and error.code not in {Code.ALREADY_EXISTS, Code.NOT_FOUND}:
                raise
            code = error.code.value
        self.calls.append(Call(what, at, time.perf_counter() - started, code))
        return code


def _lines(lines: Iterable[Line]) -> Iterator[OrderLine]:
    return (OrderLine(sku=line.sku, pieces=line.pieces, cents=line.cents) for line in lines)
