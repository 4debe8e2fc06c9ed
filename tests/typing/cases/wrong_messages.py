from datetime import UTC, datetime

from orders_v1 import Card, GetOrder, Line, Order, Orders, PlaceOrder, Status

from linkspan import Message, Oneof, ServiceContract, command, field, query, repeated, stream

order = Order(order_id="7", status=Status.PLACED)

Order(status=Status.PLACED)  # wrong: constructor without a required field
GetOrder("7")  # wrong: constructor with a positional argument
GetOrder(order_id=7)  # wrong: constructor with a wrong scalar
PlaceOrder(order_id="7", lines=["tea"])  # wrong: constructor with a wrong list item
GetOrder(order_id="7", customer="x")  # wrong: constructor with an unknown name
Order(order_id="7", status=1)  # wrong: constructor with an int for an enum
Order(order_id="7", status=Status.PLACED, note=5)  # wrong: constructor with a wrong optional
Order(order_id="7", status=Status.PLACED, placed_at=datetime.now(UTC))  # wrong: constructor with a datetime for a Timestamp
order.order_id = 7  # wrong: assignment of a wrong type
order.order_id = None  # wrong: assignment of None to a field that is not optional
print(order.nope)  # wrong: unknown attribute of a message
print(Order.nope)  # wrong: unknown attribute of a message class
print(Orders.get_ordr)  # wrong: unknown operation
order.how = Oneof("card", "4711")  # wrong: oneof with a wrong value
order.how = Oneof("cash", Card(number="1"))  # wrong: oneof with a wrong case
length: int = len(order.note)  # wrong: optional used without a check
Line(sku="tea", quantity="2")  # wrong: text for an Int32


class Wrong(Message):
    a: int = field(1, default="x")  # wrong: default of another type
    b: str = repeated(2)  # wrong: repeated without a list
    c: str = field("3")  # wrong: number that is a text
    to_json: str = field(4)  # wrong: field that hides a method


class Misspelt(Message, reservd=(4,)):  # wrong: misspelt class keyword
    a: str = field(1)


class WrongOperations(ServiceContract):
    a = query(str, Order)  # wrong: request that is no message
    b = query(GetOrder, int)  # wrong: response that is no message
    c = query(GetOrder, stream(int))  # wrong: stream of no message
    d = command(GetOrder, stream(Order), answer="now")  # wrong: answer mode of a stream
    i = query(GetOrder, stream(Order), cache=5)  # wrong: cached stream
    g = command(stream(int), Order)  # wrong: stream of no message in a request
    h = command(GetOrder, Order, budget=5)  # wrong: budget of a command without a stream
    e = command(GetOrder, Order, answer="soon")  # wrong: unknown answer mode
    f = query(GetOrder, Order, answer="now")  # wrong: answer mode of a query
