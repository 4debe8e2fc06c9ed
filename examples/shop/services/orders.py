"""The orders service leads an order through reserve, charge, and then settled or declined with its goods given back."""

from __future__ import annotations

from examples.shop.contracts.inventory_v1 import Inventory, Release, StockReleased, StockReserved
from examples.shop.contracts.orders_v1 import (
    AcceptOrder,
    GetOrder,
    Order,
    OrderDeclined,
    OrderPlaced,
    OrderRef,
    OrderRefunded,
    Orders,
    OrderSettled,
    RefundOrder,
    RefundRefused,
)
from examples.shop.contracts.payments_v1 import Charge, PaidBack, PayBack, PaymentDeclined, Payments, PaymentSettled
from examples.shop.contracts.shipping_v1 import ParcelShipped
from examples.shop.services.ledger import cents_of, now, pieces_of, tables_of
from linkspan import Code, Context, Error, Limits, Service

# A refund that comes too early is tried again after so many seconds; whatever else happens to other orders goes on meanwhile.
orders = Service("orders", Orders, migrations=tables_of("orders"), limits=Limits(parked=(1.0, 2.0, 5.0, 10.0)))


def log(ctx: Context, step: str, ref: str, pieces: int, cents: int) -> None:
    ctx.tx.record("insert into log (step, ref, pieces, cents, at) values (?, ?, ?, ?, ?)", step, ref, pieces, cents, now())


def change_status(ctx: Context, order_id: str, status: str) -> None:
    ctx.tx.record("update orders set status = ? where order_id = ?", status, order_id)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    rows = await ctx.tx.execute("select status, pieces, cents from orders where order_id = ?", request.order_id)
    if not rows:
        raise Error(Code.NOT_FOUND, f"No order '{request.order_id}': check the number, or ask again in a moment.")
    return Order(order_id=request.order_id, status=rows[0][0], pieces=rows[0][1], cents=rows[0][2])


@orders.handles(Orders.accept_order)
async def accept_order(ctx: Context, request: AcceptOrder) -> OrderRef:
    ref, pieces, cents = request.order_id, pieces_of(request.lines), cents_of(request.lines)
    ctx.tx.record("insert into orders values (?, ?, ?, ?, 'placed')", ref, request.customer, pieces, cents)
    log(ctx, "placed", ref, pieces, cents)
    await ctx.publish(OrderPlaced(order_id=ref, lines=request.lines, pieces=pieces, cents=cents))
    return OrderRef(order_id=ref)


@orders.on(StockReserved)
async def on_reserved(ctx: Context, event: StockReserved) -> None:
    change_status(ctx, event.order_id, "reserved")
    log(ctx, "reserved", event.order_id, event.pieces, event.cents)
    await ctx.send(Payments.charge, Charge(order_id=event.order_id, pieces=event.pieces, cents=event.cents))


@orders.on(PaymentSettled)
async def on_settled(ctx: Context, event: PaymentSettled) -> None:
    change_status(ctx, event.order_id, "settled")
    log(ctx, "settled", event.order_id, event.pieces, event.cents)
    await ctx.publish(OrderSettled(order_id=event.order_id, pieces=event.pieces, cents=event.cents))


@orders.on(PaymentDeclined)
async def on_declined(ctx: Context, event: PaymentDeclined) -> None:
    change_status(ctx, event.order_id, "declined")
    log(ctx, "declined", event.order_id, event.pieces, event.cents)
    await ctx.send(Inventory.release, Release(order_id=event.order_id, pieces=event.pieces, cents=event.cents))


@orders.on(StockReleased)
async def on_released(ctx: Context, event: StockReleased) -> None:
    log(ctx, "released", event.order_id, event.pieces, event.cents)
    await ctx.publish(OrderDeclined(order_id=event.order_id))


@orders.on(ParcelShipped)
async def on_shipped(ctx: Context, event: ParcelShipped) -> None:
    log(ctx, "shipped", event.order_id, event.pieces, event.cents)


# --- refunds -----------------------------------------------------------------------------------------


@orders.handles(Orders.refund_order)
async def refund_order(ctx: Context, request: RefundOrder) -> OrderRef:
    """Pay back what was paid and refuse what was not. While nobody knows yet, the request is held and tried again."""
    pieces, cents = pieces_of(request.lines), cents_of(request.lines)
    rows = await ctx.tx.execute("select status from orders where order_id = ?", request.order_id)
    if not rows:
        raise Error(Code.NOT_FOUND, f"No order '{request.order_id}' to refund: look where the request came from.")
    status = rows[0][0]
    if status not in {"settled", "declined"}:
        raise Error(Code.UNAVAILABLE, f"Order '{request.order_id}' is still {status}: its refund has to wait.")
    insert = "insert into refunds values (?, ?, ?, ?, ?, ?)"
    log(ctx, "refund_requested", request.refund_id, pieces, cents)
    if status == "settled":
        ctx.tx.record(insert, request.refund_id, request.order_id, pieces, cents, request.to_binary(), "asked")
        await ctx.send(Payments.pay_back, PayBack(order_id=request.order_id, refund_id=request.refund_id, cents=cents))
    else:
        ctx.tx.record(insert, request.refund_id, request.order_id, pieces, cents, request.to_binary(), "refused")
        log(ctx, "refund_refused", request.refund_id, pieces, cents)
        await ctx.publish(RefundRefused(order_id=request.order_id, refund_id=request.refund_id))
    return OrderRef(order_id=request.order_id)


@orders.on(PaidBack)
async def on_paid_back(ctx: Context, event: PaidBack) -> None:
    rows = await ctx.tx.execute("select request, pieces from refunds where refund_id = ?", event.refund_id)
    if not rows:
        raise Error(Code.INTERNAL, f"Paid back '{event.refund_id}', which nobody asked for: look at the payments service.")
    request = RefundOrder.from_binary(rows[0][0])
    ctx.tx.record("update refunds set status = 'refunded' where refund_id = ?", event.refund_id)
    log(ctx, "refunded", event.refund_id, rows[0][1], event.cents)
    await ctx.publish(OrderRefunded(order_id=event.order_id, refund_id=event.refund_id, lines=request.lines))
