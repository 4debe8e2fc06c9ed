"""The shipping service sends out what is paid for."""

from __future__ import annotations

from examples.shop.contracts.orders_v1 import OrderSettled
from examples.shop.contracts.shipping_v1 import GetParcel, Parcel, ParcelShipped, Shipping
from examples.shop.services.ledger import now, tables_of
from linkspan import Code, Context, Error, Service

shipping = Service("shipping", Shipping, migrations=tables_of("shipping"))


@shipping.on(OrderSettled)
async def ship(ctx: Context, event: OrderSettled) -> None:
    ctx.tx.record("insert into parcels (order_id, pieces, at) values (?, ?, ?)", event.order_id, event.pieces, now())
    await ctx.publish(ParcelShipped(order_id=event.order_id, pieces=event.pieces, cents=event.cents))


@shipping.handles(Shipping.get_parcel)
async def get_parcel(ctx: Context, request: GetParcel) -> Parcel:
    rows = await ctx.tx.execute("select pieces from parcels where order_id = ?", request.order_id)
    if not rows:
        raise Error(Code.NOT_FOUND, f"No parcel for order '{request.order_id}': it may not be paid yet.")
    return Parcel(order_id=request.order_id, pieces=rows[0][0])
