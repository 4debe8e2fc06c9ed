"""Operations get their names from the service contract, and wrong ones are refused when it is created."""

from __future__ import annotations

from typing import Any

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import MethodOptions

from linkspan.contract import Contract, find_contract
from linkspan.contracts.comments import comments
from linkspan.errors import SetupError
from linkspan.message import Event, Message, field, has_key, is_event, key_of, package_of, redacted, traits_of, type_name
from linkspan.operation import (
    BidiStream,
    ClientStream,
    Command,
    EventType,
    Operation,
    Query,
    ServerStream,
    ServiceContract,
    command,
    query,
    stream,
)
from linkspan.options import MethodRules, ext_method
from tests.unit.declaring import declare
from tests.unit.generated_orders_pb import GetOrderRequest, OrderPlaced

contract = Contract("test.orders.v1")


class GetOrder(Message):
    order_id: str = field(1)


class PlaceOrder(Message):
    order_id: str = field(1, key=True)


class Order(Message):
    order_id: str = field(1)
    request: GetOrderRequest | None = field(2, default=None)


class Orders(ServiceContract):
    """All about orders."""

    get_order = query(GetOrder, Order, staleness=2.0, budget=0.5, cache=60.0)
    """One order."""
    watch = query(GetOrder, stream(Order))
    place_order = command(PlaceOrder, Order, answer="later", expires=3600)
    cancel = command(PlaceOrder, Order)
    upload = command(stream(PlaceOrder), Order, budget=60)
    sum_up = query(stream(GetOrder), Order, staleness=1.0)
    chat = query(stream(GetOrder), stream(Order))
    place_and_watch = command(PlaceOrder, stream(Order))


def test_operation_knows_its_names() -> None:
    operation = Orders.get_order
    assert operation.name == "get_order"
    assert operation.rpc_name == "GetOrder"
    assert operation.service_name == "test.orders.v1.Orders"
    assert operation.path == "/test.orders.v1.Orders/GetOrder"
    assert operation.full_name == "test.orders.v1.Orders.GetOrder"
    assert operation.package == "test.orders.v1"
    assert (operation.request, operation.response) == (GetOrder, Order)
    assert repr(operation) == "<Query test.orders.v1.Orders.GetOrder>"


def test_operations_carry_their_settings() -> None:
    kinds: list[tuple[type[Operation[Any, Any]], str]] = [(type(o), o.kind) for o in Orders.operations]
    assert kinds == [
        (Query, "query"),
        (ServerStream, "query"),
        (Command, "command"),
        (Command, "command"),
        (ClientStream, "command"),
        (ClientStream, "query"),
        (BidiStream, "query"),
        (ServerStream, "command"),
    ]
    assert (Orders.get_order.staleness, Orders.get_order.budget, Orders.get_order.cache) == (2.0, 0.5, 60.0)
    assert (Orders.watch.staleness, Orders.watch.budget, Orders.watch.response) == (0.0, None, Order)
    assert (Orders.place_order.answer, Orders.place_order.expires) == ("later", 3600)
    assert (Orders.cancel.answer, Orders.cancel.expires) == ("either", None)
    assert (Orders.upload.request, Orders.upload.response, Orders.upload.budget) == (PlaceOrder, Order, 60)
    assert (Orders.sum_up.staleness, Orders.chat.request, Orders.chat.response) == (1.0, GetOrder, Order)


def test_operation_knows_which_sides_stream() -> None:
    sides = {operation.name: (operation.client_streaming, operation.server_streaming) for operation in Orders.operations}
    assert (sides["get_order"], sides["cancel"]) == ((False, False), (False, False))
    assert (sides["watch"], sides["place_and_watch"]) == ((False, True), (False, True))
    assert (sides["upload"], sides["sum_up"]) == ((True, False), (True, False))
    assert sides["chat"] == (True, True)


def test_service_contract_knows_its_parts() -> None:
    assert [operation.name for operation in Orders.operations][:5] == ["get_order", "watch", "place_order", "cancel", "upload"]
    assert (Orders.full_name, Orders.contract, Orders.events) == ("test.orders.v1.Orders", contract, ())
    assert find_contract(__name__) is contract


def test_creating_a_service_contract_links() -> None:
    module = declare("class A(Message):\n x: str = field(1)\nclass Orders(ServiceContract):\n get = query(A, A)")
    assert "_desc" in vars(module.A)


def test_descriptor_has_the_service() -> None:
    file = contract.descriptor()
    (service,) = file.service
    methods = {method.name: method for method in service.method}
    assert list(methods) == ["GetOrder", "Watch", "PlaceOrder", "Cancel", "Upload", "SumUp", "Chat", "PlaceAndWatch"]
    assert (methods["GetOrder"].input_type, methods["GetOrder"].output_type) == (".test.orders.v1.GetOrder", ".test.orders.v1.Order")
    assert [method.server_streaming for method in service.method] == [False, True, False, False, False, False, True, True]
    assert [method.client_streaming for method in service.method] == [False, False, False, False, True, True, True, False]
    rules = {name: method.options[ext_method] for name, method in methods.items() if method.options}
    assert rules["GetOrder"] == MethodRules(staleness=2.0, budget=0.5, cache=60.0)
    assert rules["Upload"] == MethodRules(command=True, budget=60)
    assert rules["SumUp"] == MethodRules(staleness=1.0)
    assert rules["PlaceOrder"] == MethodRules(command=True, answer="later", expires=3600)
    free = MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS
    assert [name for name, m in methods.items() if m.options and m.options.idempotency_level == free] == [
        "GetOrder",
        "Watch",
        "SumUp",
        "Chat",
    ]
    assert file.dependency == ["gen/orders/v1/orders.proto", "linkspan/options.proto"]


def test_docs_are_read_from_the_source() -> None:
    docs = comments(__name__)
    assert (docs["test.orders.v1.Orders"], docs["test.orders.v1.Orders.GetOrder"]) == ("All about orders.", "One order.")


WRONG = {
    "request is no message": ("get = query(str, A)", "has the request <class 'str'>, which is no message class"),
    "request is a value": ("get = query(7, A)", "has the request 7, which is no message class"),
    "response is a list": ("get = query(A, list[A])", "has the response list"),
    "stream of no message": ("get = query(A, stream(int))", "has the response <class 'int'>"),
    "stream of no message, asked": ("get = query(stream(int), A)", "has the request <class 'int'>"),
    "stream with an answer mode": ("get = command(A, stream(A), answer='now')", "answered now and never stored: leave out 'answer'"),
    "stream that expires": ("get = command(stream(A), A, expires=5)", "answered now and never stored: leave out 'answer' and 'expires'"),
    "command with a budget": ("get = command(A, A, budget=5)", "A command without a stream has no budget: leave it out"),
    "stream with negative staleness": ("get = query(A, stream(A), staleness=-1)", "staleness -1: give seconds, 0 or more"),
    "stream without a budget": ("get = command(A, stream(A), budget=0)", "budget 0: give seconds, more than 0"),
    "request is an event": ("get = query(E, A)", "events are published; take a Message"),
    "event is no message": ("made = event(int)", "which is no message class: name a generated one"),
    "negative staleness": ("get = query(A, A, staleness=-1)", "staleness -1: give seconds, 0 or more"),
    "no budget": ("get = query(A, A, budget=0)", "budget 0: give seconds, more than 0"),
    "no cache": ("get = query(A, A, cache=0)", "cache 0: give seconds, more than 0"),
    "cached stream": ("get = query(A, stream(A), cache=5)", "A query with a stream cannot be cached: leave out 'cache'"),
    "cached personal data": ("get = query(P, A, cache=5)", "would put personal data into URLs and their logs: take out cache="),
    "cached personal data inside": ("get = query(Q, A, cache=5)", "would put personal data into URLs and their logs"),
    "endless expiry": ("get = command(A, A, expires=float('inf'))", "expires inf: give seconds"),
    "unknown answer": ("get = command(A, A, answer='soon')", "answer 'soon': take 'now', 'later' or 'either'"),
    "one value, two names": ("get = query(A, A)\n  find = get", "the same value as 'made.v1.Orders.Get': declare it anew"),
    "one name on the wire": ("get_it = query(A, A)\n  get__it = query(A, A)", "are both 'GetIt': rename one"),
    "hides a part": ("operations = query(A, A)", "hides a part of every service contract"),
    "hides the contract": ("contract = query(A, A)", "hides a part of every service contract"),
    "not ascii": ("größe = query(A, A)", "a name that protobuf does not allow"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_operation_says_what_to_do(case: str) -> None:
    text, sentence = WRONG[case]
    head = "class A(Message):\n x: str = field(1)\nclass E(Event):\n x: str = field(1, key=True)\n"
    head += "class P(Message):\n x: str = field(1, pii=True)\n"
    head += "class R(Message):\n x: dict[str, P] = mapping(1)\nclass Q(Message):\n x: list[R] = repeated(1)\n"
    with pytest.raises(SetupError) as raised:
        declare(f"{head}class Orders(ServiceContract):\n  {text}", package="made.v1", module="made_v1")
    assert sentence in str(raised.value)


def test_service_contract_cannot_be_extended() -> None:
    with pytest.raises(SetupError, match="inherits from another"):
        declare("class A(ServiceContract):\n pass\nclass B(A):\n pass")


def test_service_named_as_a_message() -> None:
    with pytest.raises(SetupError, match="two types 'A': rename one"):
        declare("class A(Message):\n x: str = field(1)\nclass A(ServiceContract):\n pass")


PROTO_FIRST = "from tests.unit.generated_orders_pb import GetOrderRequest, OrderPlaced\nclass OrderService(ServiceContract):\n  "


def proto_first(text: str) -> Any:
    return declare(PROTO_FIRST + text, package="gen.orders.v1", module="gen_orders_v1")


def test_proto_first_takes_its_names_from_the_proto_file() -> None:
    module = proto_first(
        "get_order = query(GetOrderRequest, OrderPlaced)\n  watch_url = query(GetOrderRequest, stream(OrderPlaced))\n"
        "  place_order = command(GetOrderRequest, OrderPlaced)\n  order_placed = event(OrderPlaced)"
    )
    service = module.OrderService
    assert [o.rpc_name for o in service.operations] == ["GetOrder", "WatchURL", "PlaceOrder"]
    assert service.watch_url.path == "/gen.orders.v1.OrderService/WatchURL"
    placed = service.order_placed
    assert isinstance(placed, EventType)
    assert (placed.name, placed.full_name, placed.package) == ("order_placed", "gen.orders.v1.OrderPlaced", "gen.orders.v1")
    assert (placed.message, service.events) == (OrderPlaced, (placed,))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("get_it = query(GetOrderRequest, OrderPlaced)", "not in the .proto file: name one of 'GetOrder', 'WatchURL', 'PlaceOrder'"),
        ("get_order = query(GetOrderRequest, GetOrderRequest)", "write 'gen.orders.v1.GetOrderRequest' and 'gen.orders.v1.OrderPlaced'"),
        ("watch_url = query(GetOrderRequest, OrderPlaced)", "is unary here and server_streaming in its .proto file"),
        ("watch_url = query(stream(GetOrderRequest), OrderPlaced)", "is client_streaming here and server_streaming in its .proto file"),
        ("watch_url = query(stream(GetOrderRequest), stream(OrderPlaced))", "is bidi_streaming here and server_streaming in its .proto"),
        ("get_order = command(GetOrderRequest, OrderPlaced)", "no side effects in its .proto file: declare it with query()"),
    ],
)
def test_proto_first_is_compared_with_the_proto_file(text: str, sentence: str) -> None:
    with pytest.raises(SetupError) as raised:
        proto_first(text)
    assert sentence in str(raised.value)


def test_generated_classes_have_traits() -> None:
    placed = OrderPlaced(order_id="7", mail="a@b")
    assert (type_name(OrderPlaced), package_of(OrderPlaced)) == ("gen.orders.v1.OrderPlaced", "gen.orders.v1")
    assert (key_of(placed), has_key(OrderPlaced), is_event(OrderPlaced)) == ("7", True, True)
    assert (key_of(GetOrderRequest(order_id="7")), has_key(GetOrderRequest), is_event(GetOrderRequest)) == (None, False, False)
    assert redacted(placed) == "OrderPlaced(order_id='7', mail=***)"
    assert traits_of(OrderPlaced) is traits_of(OrderPlaced)


def test_generated_classes_keep_their_own_absent_values() -> None:
    assert GetOrderRequest().note == ""
    order = Order(order_id="7", request=GetOrderRequest(order_id="1"))
    assert Order.from_binary(order.to_binary()) == order


def test_message_of_another_contract_can_be_a_part() -> None:
    module = declare(
        "import tests.unit.test_operation as t\nclass Basket(Event):\n x: str = field(1, key=True)\n orders: list[t.Order] = repeated(2)"
    )
    basket = module.Basket(x="1", orders=[Order(order_id="7")])
    assert module.Basket.from_binary(basket.to_binary()).orders == [Order(order_id="7")]


def test_plain_base_classes_are_not_messages_of_ours() -> None:
    assert issubclass(Event, Message)
    with pytest.raises(SetupError, match="messages cannot inherit fields"):
        declare("class Both(Message, Event):\n x: str = field(1)")
