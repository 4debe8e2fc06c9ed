"""The storefront: where a customer waits for an answer, so it asks by direct calls, and promises by durable commands."""

from __future__ import annotations

from examples.shop.contracts.inventory_v1 import GetShelf, Inventory
from examples.shop.contracts.orders_v1 import AcceptOrder, GetOrder, Orders, RefundOrder
from examples.shop.contracts.storefront_v1 import Placed, PlaceOrder, ReturnGoods, Returning, Storefront, Track, Tracked
from examples.shop.services.ledger import cents_of, goods, now, pieces_of, tables_of
from linkspan import Code, Context, Error, Service

storefront = Service("storefront", Storefront, migrations=tables_of("storefront"))

PATIENCE = 0.25
"""Seconds a customer waits for a look at the shelf; an order is taken without it."""


@storefront.handles(Storefront.place_order)
async def place_order(ctx: Context, request: PlaceOrder) -> Placed:
    if not request.lines or any(line.pieces < 1 or line.cents < 1 for line in request.lines):
        raise Error(Code.INVALID_ARGUMENT, "The order has no lines, or one without pieces or price: send at least one good line.")
    stock = await look_at_shelf(ctx, request)  # calls come before the first write
    pieces, cents = pieces_of(request.lines), cents_of(request.lines)
    # A number used before breaks the primary key: nothing is written or sent, and the caller is told ALREADY_EXISTS.
    ctx.tx.record("insert into checkouts values (?, ?, ?, ?, ?, ?)", request.order_id, request.customer, pieces, cents, stock, now())
    await ctx.send(Orders.accept_order, AcceptOrder(order_id=request.order_id, customer=request.customer, lines=request.lines))
    return Placed(order_id=request.order_id, pieces=pieces, cents=cents)


async def look_at_shelf(ctx: Context, request: PlaceOrder) -> str:
    """Ask the inventory, but let no slow inventory stop a sale."""
    skus = [line.sku for line in goods(request.lines)]
    try:
        await ctx.call(Inventory.get_shelf, GetShelf(skus=skus), timeout=PATIENCE)
    except Error as error:
        if error.transient:
            return "unseen"
        raise
    return "seen"


@storefront.handles(Storefront.return_goods)
async def return_goods(ctx: Context, request: ReturnGoods) -> Returning:
    if not request.lines:
        raise Error(Code.INVALID_ARGUMENT, "The return has no lines: send at least one.")
    # Only what was bought here comes back. The order's own command was then sent before this one, under the same key,
    # so the orders service sees them in this order; a return that came first would hold up the order that it waits for.
    if not await ctx.tx.execute("select 1 from checkouts where order_id = ?", request.order_id):
        raise Error(Code.NOT_FOUND, f"No order '{request.order_id}' was placed here: check the number.")
    pieces, cents = pieces_of(request.lines), cents_of(request.lines)
    ctx.tx.record("insert into returns values (?, ?, ?, ?, ?)", request.refund_id, request.order_id, pieces, cents, now())
    await ctx.send(Orders.refund_order, RefundOrder(order_id=request.order_id, refund_id=request.refund_id, lines=request.lines))
    return Returning(refund_id=request.refund_id)


@storefront.handles(Storefront.track)
async def track(ctx: Context, request: Track) -> Tracked:
    order = await ctx.call(Orders.get_order, GetOrder(order_id=request.order_id))
    return Tracked(order_id=order.order_id, status=order.status)
