"""An app that reminds later: `linkspan run reminders:app`."""

from __future__ import annotations

from linkspan import App, Context, Contract, Event, Message, Service, ServiceContract, command, field

contract = Contract("cli.reminders.v1")


class Remind(Message):
    order_id: str = field(1, key=True)
    after: float = field(2)


class Noted(Message):
    id: str = field(1)


class Reminded(Event):
    order_id: str = field(1, key=True)


class Reminders(ServiceContract):
    remind = command(Remind, Noted)


shop = Service("shop", Reminders, migrations=["create table reminded (order_id text)"])


@shop.handles(Reminders.remind)
async def remind(ctx: Context, request: Remind) -> Noted:
    return Noted(id=await ctx.publish(Reminded(order_id=request.order_id), after=request.after))


@shop.on(Reminded)
async def reminded(ctx: Context, event: Reminded) -> None:
    ctx.tx.record("insert into reminded values (?)", event.order_id)


app = App(shop)
