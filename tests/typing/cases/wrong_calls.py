# Needs Context.call, Context.send, Context.publish
from orders_v1 import GetOrder, Order, OrderPlaced, Orders, PlaceOrder, WatchOrders

from linkspan import Context


async def calls(ctx: Context) -> None:
    await ctx.call(Orders.get_order, PlaceOrder(order_id="7"))  # wrong: call with a wrong request
    await ctx.call(Orders.watch, WatchOrders(customer_id="ann"))  # wrong: call of a stream
    text: str = await ctx.call(Orders.get_order, GetOrder(order_id="7"))  # wrong: call with a wrong result type
    print(text)
    await ctx.call(Orders.get_order, GetOrder(order_id="7"), via="durable")  # wrong: call over the durable path
    await ctx.call(Orders.get_order, GetOrder(order_id="7"), timeout="1s")  # wrong: timeout that is a text
    await ctx.call(Order, GetOrder(order_id="7"))  # wrong: call of a message class
    await ctx.send(Orders.get_order, GetOrder(order_id="7"))  # wrong: send of a query
    await ctx.send(Orders.place_order, GetOrder(order_id="7"))  # wrong: send with a wrong request
    await ctx.publish("x")  # wrong: publish of a text
    await ctx.publish(GetOrder(order_id="7"))  # wrong: publish of a request
    await ctx.publish(OrderPlaced)  # wrong: publish of an event class
