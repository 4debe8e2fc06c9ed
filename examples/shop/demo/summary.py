"""What happened, in words, numbers and a picture."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from examples.shop.demo.drawing import svg
from examples.shop.demo.measure import direct_edges, durable_edges, timeline, unseen
from examples.shop.demo.picture import terminal
from examples.shop.demo.show import say

if TYPE_CHECKING:
    from pathlib import Path

    from examples.shop.demo.run import Run
    from examples.shop.order_book import OrderBook

__all__ = ["print_run", "report"]

SHOWN = 20
"""Differences that are printed."""


def report(run: Run) -> dict[str, int | bool]:
    """Return the machine-readable result. Refunds are counted in cancelled lines; messages each once, however often sent."""
    result = run.result
    return {
        "orders": result.orders,
        "settled": result.settled,
        "refunded": result.refunded,
        "unmatched_refunds": result.unmatched_refunds,
        "rejected_rows": result.rejected_rows,
        "messages": result.messages,
        "duplicates_injected": run.faults.injected,
        "duplicates_suppressed": run.suppressed,
        "dead_letters": result.dead_letters,
        "lost": result.lost,
        "double_effects": result.double_effects,
        "reconciled": result.reconciled,
    }


def print_run(run: Run, book: OrderBook, folder: Path, picture: Path | None) -> None:
    """Print input, faults, picture and reconciliation."""
    _input(book)
    _faults(run, folder)
    edges = [*direct_edges(run.calls), *durable_edges(folder)]
    line_of_time = timeline(folder, run.calls, run.faults.events, run.begin)
    say("Latency and flow per path")
    for line in terminal(edges, line_of_time):
        print(f"    {line}".rstrip())
    if picture is not None:
        picture.write_text(svg(edges, line_of_time), encoding="utf-8")
        print(f"    the same as a drawing: {picture}")
    _books(run)


def _input(book: OrderBook) -> None:
    say("Input")
    lines = sum(len(order.lines) for order in book.orders)
    cancelled = sum(len(refund.lines) for refund in book.refunds)
    print(f"    {len(book.orders)} orders with {lines} lines; {cancelled} cancelled lines matched to their invoice")
    for reason, count in Counter(row.reason for row in book.rejected).most_common():
        print(f"    {count} rows rejected: {reason}")
    for reason, count in Counter(line.reason for line in book.unmatched).most_common():
        print(f"    {count} cancelled lines unmatched: {reason}")


def _faults(run: Run, folder: Path) -> None:
    faults = run.faults
    say("Faults put in")
    through = faults.injected - faults.stopped_by_broker
    print(f"    {faults.injected} messages sent again: {faults.stopped_by_broker} recognised by the broker, {through} left to the inboxes")
    print(f"    {run.refused_by_inbox} deliveries refused by inboxes (an event has several readers; redeliveries after the kill count too)")
    print(f"    {run.result.dead_letters} of {faults.poisoned} poison messages became a dead letter")
    print(f"    payments was killed with {run.held} messages unacknowledged")
    print(f"    inventory was slow: {unseen(folder)} orders were taken without a look at the shelf")
    print(f"    {_unanswered(run)} calls of customers had no answer in time and were made again")
    print(f"    {run.parked} messages came too early (a refund before its order was paid), were held and tried again")


def _unanswered(run: Run) -> int:
    return sum(call.code not in {"ok", "not_found", "already_exists"} for call in run.calls)


def _books(run: Run) -> None:
    result = run.result
    say("Reconciliation: the orders file against the six databases")
    print(f"    orders    {result.orders:>8}   settled {result.settled}, declined with their goods given back {result.declined}")
    charged, refunded = _pounds(result.charged_cents), _pounds(result.refunded_cents)
    print(f"    money   {charged:>10}   charged, {refunded} of it paid back; {result.shipped_pieces} pieces shipped")
    refused = f", {result.refused_refunds} refused because their order was declined" if result.refused_refunds else ""
    print(f"    refunds   {result.refunded:>8}   lines paid back, {result.unmatched_refunds} unmatched{refused}")
    print(f"    messages  {result.messages:>8}   sent once, handled {result.deliveries} times by their readers")
    print(f"    lost      {result.lost:>8}   double effects {result.double_effects}")
    for difference in result.differences[:SHOWN]:
        print(f"    ! {difference}")
    if len(result.differences) > SHOWN:
        print(f"    ! and {len(result.differences) - SHOWN} more")
    print("    RECONCILED to the cent and the piece" if result.reconciled else "    NOT RECONCILED")


def _pounds(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02}"
