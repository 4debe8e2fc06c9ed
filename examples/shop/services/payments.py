"""The payments service charges cards, some of which are declined, and pays money back."""

from __future__ import annotations

from hashlib import sha256

from examples.shop.contracts.payments_v1 import Charge, PaidBack, PayBack, PaymentDeclined, Payments, PaymentSettled, Receipt
from examples.shop.services.ledger import now, tables_of
from linkspan import Context, Service

payments = Service("payments", Payments, migrations=tables_of("payments"))

DECLINED_OF_256 = 20
"""So many cards of 256 are declined, always the same ones."""


def is_declined(order_id: str) -> bool:
    return sha256(order_id.encode()).digest()[0] < DECLINED_OF_256


@payments.handles(Payments.charge)
async def charge(ctx: Context, request: Charge) -> Receipt:
    declined = is_declined(request.order_id)
    enter(ctx, "declined" if declined else "charged", request.order_id, request.cents)
    kind = PaymentDeclined if declined else PaymentSettled
    await ctx.publish(kind(order_id=request.order_id, pieces=request.pieces, cents=request.cents))
    return Receipt(order_id=request.order_id)


@payments.handles(Payments.pay_back)
async def pay_back(ctx: Context, request: PayBack) -> Receipt:
    enter(ctx, "refunded", request.refund_id, request.cents)
    await ctx.publish(PaidBack(order_id=request.order_id, refund_id=request.refund_id, cents=request.cents))
    return Receipt(order_id=request.order_id)


def enter(ctx: Context, kind: str, ref: str, cents: int) -> None:
    ctx.tx.record("insert into payments (kind, ref, cents, at) values (?, ?, ?, ?)", kind, ref, cents, now())
