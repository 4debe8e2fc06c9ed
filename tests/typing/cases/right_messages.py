from typing import Literal, assert_type

from orders_v1 import Card, GetOrder, Line, Order, OrderPlaced, Orders, PlaceOrder, Status, WatchOrders

from linkspan import BidiStream, ClientStream, Command, Duration, Oneof, Query, ServerStream, Timestamp

CardPay = Oneof[Literal["card"], Card]

order = Order(order_id="7", status=Status.PLACED)
card_pay = CardPay("card", Card(number="1"))
order = Order(order_id="7", status=Status.PLACED, placed_at=Timestamp.now(), note="x", tags={"a": "b"}, how=card_pay)
order.note = None
order.status = Status.UNSPECIFIED
order.tags["a"] = "c"
placed = PlaceOrder(order_id="7", lines=[Line(sku="tea", quantity=2)])
placed.lines.append(Line(sku="tea", quantity=1))
same = Order.from_binary(order.to_binary())

assert_type(same.note, str | None)
assert_type(same.status, Status)
assert_type(same.placed_at, Timestamp | None)
assert_type(placed.lines, list[Line])
assert_type(placed.lines[0].quantity, int)
assert_type(same, Order)
assert_type(Orders.get_order, Query[GetOrder, Order])
assert_type(Orders.place_order, Command[PlaceOrder, Order])
assert_type(Orders.watch, ServerStream[WatchOrders, Order])
assert_type(Orders.import_orders, ClientStream[PlaceOrder, Order])
assert_type(Orders.chat, BidiStream[PlaceOrder, Order])
assert_type(Orders.get_order.request, type[GetOrder])
assert_type(OrderPlaced(order_id="7").order_id, str)
assert_type(Duration.from_seconds(3).to_seconds(), float)

match same.how:
    case Oneof(value=Card() as card):
        assert_type(card, Card)
    case _:
        pass
