"""The notifications service tells customers what happened. It promises nothing to others, so it has no contract."""

from __future__ import annotations

from examples.shop.contracts.orders_v1 import OrderDeclined, OrderRefunded, OrderSettled, RefundRefused
from examples.shop.contracts.shipping_v1 import ParcelShipped
from examples.shop.services.ledger import now, tables_of
from linkspan import Context, Service

notifications = Service("notifications", migrations=tables_of("notifications"))


def mail(ctx: Context, kind: str, ref: str) -> None:
    ctx.tx.record("insert into mails (kind, ref, at) values (?, ?, ?)", kind, ref, now())


@notifications.on(OrderSettled)
async def receipt(ctx: Context, event: OrderSettled) -> None:
    mail(ctx, "receipt", event.order_id)


@notifications.on(ParcelShipped)
async def shipped(ctx: Context, event: ParcelShipped) -> None:
    mail(ctx, "shipped", event.order_id)


@notifications.on(OrderDeclined)
async def declined(ctx: Context, event: OrderDeclined) -> None:
    mail(ctx, "declined", event.order_id)


@notifications.on(OrderRefunded)
async def refunded(ctx: Context, event: OrderRefunded) -> None:
    mail(ctx, "refunded", event.refund_id)


@notifications.on(RefundRefused)
async def refused(ctx: Context, event: RefundRefused) -> None:
    mail(ctx, "refund_refused", event.refund_id)
