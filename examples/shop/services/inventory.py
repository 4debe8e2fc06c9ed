"""The inventory puts goods aside for an order, and back on the shelf when it is declined or returned."""

from __future__ import annotations

import json

from examples.shop.contracts.inventory_v1 import GetShelf, Inventory, Release, Released, Shelf, StockReleased, StockReserved
from examples.shop.contracts.orders_v1 import Line, OrderPlaced, OrderRefunded
from examples.shop.services.ledger import goods, now, tables_of
from linkspan import Context, Service

inventory = Service("inventory", Inventory, migrations=tables_of("inventory"))

OPENING = 1_000_000
"""Pieces of an article on the shelf before its first sale."""

TAKE = """insert into stock (sku, opening, on_hand) values (?1, ?2, ?2 - ?3)
          on conflict (sku) do update set on_hand = on_hand - ?3"""
MOVE = "insert into movements (kind, ref, sku, pieces, at) values (?, ?, ?, ?, ?)"
PUT_BACK_RESERVED = """update stock set on_hand = on_hand + reserved.pieces
    from (select sku, sum(pieces) as pieces from movements where ref = ? and kind = 'reserve' group by sku) as reserved
    where stock.sku = reserved.sku"""
RELEASE = """insert into movements (kind, ref, sku, pieces, at)
    select 'release', ref, sku, pieces, ? from movements where ref = ? and kind = 'reserve'"""


@inventory.handles(Inventory.get_shelf)
async def get_shelf(ctx: Context, request: GetShelf) -> Shelf:
    sql = "select sku, on_hand from stock where sku in (select value from json_each(?))"
    return Shelf(on_hand=dict(await ctx.tx.execute(sql, json.dumps(list(request.skus)))))


@inventory.on(OrderPlaced)
async def reserve(ctx: Context, event: OrderPlaced) -> None:
    for line in goods(event.lines):
        move(ctx, "reserve", event.order_id, line, -line.pieces)
    await ctx.publish(StockReserved(order_id=event.order_id, pieces=event.pieces, cents=event.cents))


@inventory.handles(Inventory.release)
async def release(ctx: Context, request: Release) -> Released:
    ctx.tx.record(PUT_BACK_RESERVED, request.order_id)
    ctx.tx.record(RELEASE, now(), request.order_id)
    await ctx.publish(StockReleased(order_id=request.order_id, pieces=request.pieces, cents=request.cents))
    return Released(order_id=request.order_id)


@inventory.on(OrderRefunded)
async def put_back(ctx: Context, event: OrderRefunded) -> None:
    for line in goods(event.lines):
        move(ctx, "return", event.refund_id, line, line.pieces)


def move(ctx: Context, kind: str, ref: str, line: Line, change: int) -> None:
    ctx.tx.record(TAKE, line.sku, OPENING, -change)
    ctx.tx.record(MOVE, kind, ref, line.sku, line.pieces, now())
