"""Routes are declared on operations, checked when the contract is made, and written into its descriptor as google.api.http."""

from __future__ import annotations

from typing import Any

import pytest
from protobuf import Oneof
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, MethodOptions

from linkspan import App, Service
from linkspan.errors import Code, SetupError
from linkspan.http_rule import CustomHttpPattern, HttpRule, ext_http
from linkspan.routes import Http
from tests.unit.declaring import declare

HEAD = """
from linkspan.routes import Http
from protobuf.wkt import Struct

class Address(Message):
  city: str = field(1)

class A(Message):
  id: str = field(1)
  tags: list[str] = repeated(2)
  address: Address | None = field(3, default=None)
  at: Timestamp | None = field(4, default=None)

class Wide(Message):
  id: str = field(1)
  by_name: dict[str, str] = mapping(2)
  parts: list[A] = repeated(3)
  tree: Struct | None = field(4, default=None)

class Orders(ServiceContract):
  """


def made(text: str, **options: Any) -> Any:
    return declare(HEAD + text, **options)


def methods(module: Any) -> dict[str, Any]:
    """Return the methods of the exported contract, after a round trip through bytes."""
    file = FileDescriptorProto.from_binary(module.contract.descriptor().to_binary())
    return {method.name: method for service in file.service for method in service.method}


def test_text_is_enough_for_the_usual_case() -> None:
    module = made("""get = query(A, A, http="GET /v1/a/{id}")
  put = command(A, A, http="PUT /v1/a/{id}")
  drop = command(A, A, http="DELETE /v1/a/{id}")
  plain = query(A, A)""")
    assert [str(route) for route in module.Orders.get.routes] == ["GET /v1/a/{id}"]
    assert [o.routes[0].body for o in (module.Orders.get, module.Orders.put, module.Orders.drop)] == ["", "*", ""]
    assert (module.Orders.plain.http, module.Orders.plain.routes) == (None, ())


def test_route_is_the_official_option_of_the_method() -> None:
    module = made("""get = query(A, A, http=Http("GET /v1/a/{id}", response_body="address", additional=("GET /v2/{address.city}/a/{id}",)))
  put = command(A, A, http=Http("PATCH /v1/a/{id}:go", body="address"))
  plain = query(A, A)""")
    found = methods(module)
    assert found["Get"].options[ext_http] == HttpRule(
        pattern=Oneof("get", "/v1/a/{id}"),
        response_body="address",
        additional_bindings=[HttpRule(pattern=Oneof("get", "/v2/{address.city}/a/{id}"))],
    )
    assert found["Put"].options[ext_http] == HttpRule(pattern=Oneof("patch", "/v1/a/{id}:go"), body="address")
    assert ext_http not in found["Plain"].options
    assert "google/api/annotations.proto" in module.contract.descriptor().dependency


def test_option_is_written_to_the_byte_as_protoc_does() -> None:
    module = made('get = query(A, A, http=Http("GET /v1/{id}", response_body="at"))')
    options = methods(module)["Get"].options
    rule = b"\x12\x08/v1/{id}" + b"\x62\x02at"  # get = 2, response_body = 12
    tag = bytes.fromhex("82d3e49302")  # 72295728 << 3 | 2
    assert tag + bytes([len(rule)]) + rule in options.to_binary()


def test_rule_survives_both_directions() -> None:
    http = Http("POST /v1/a", body="at", response_body="id", additional=(Http("PUT /v1/a/{id}", body=""),))
    again = Http.from_rule(HttpRule.from_binary(http.rule().to_binary()))
    assert again.rule() == http.rule()
    custom = HttpRule(pattern=Oneof("custom", CustomHttpPattern(kind="HEAD", path="/x")))
    assert Http.from_rule(custom).rule() == custom
    assert Http("GET /x", errors={409: Code.ABORTED}).errors == {409: Code.ABORTED}


WRONG = {
    "no method": ('query(A, A, http="/v1/a")', "has the route '/v1/a', which does not begin with a method: write GET"),
    "another method": ('query(A, A, http="HEAD /v1/a")', "does not begin with a method"),
    "wrong template": ('query(A, A, http="GET /v1/{id")', "segment '{id' is not one whole variable: write it as in"),
    "unknown field": ('query(A, A, http="GET /v1/{nr}")', "but 'made.v1.A' has no field 'nr': name one of 'id', 'tags'"),
    "unknown inner field": ('query(A, A, http="GET /v1/{address.zip}")', "has no field 'address.zip'"),
    "repeated field in the path": ('query(A, A, http="GET /v1/{tags}")', "'tags' is not a single value"),
    "message in the path": ('query(A, A, http="GET /v1/{address}")', "'address' is not a single value"),
    "one field twice": ('query(A, A, http="GET /v1/{id}/{id}")', "has '{id}' twice"),
    "body on GET": ('query(A, A, http=Http("GET /v1/a", body="*"))', "but a GET has no body: leave `body` out, or take POST"),
    "body on DELETE": ('command(A, A, http=Http("DELETE /v1/a", body="at"))', "a DELETE has no body"),
    "unknown body": ('command(A, A, http=Http("POST /v1/a", body="x"))', "has no field 'x' for the body"),
    "inner field as body": ('command(A, A, http=Http("POST /v1/a", body="address.city"))', "has no field 'address.city' for the body"),
    "unknown answer": ('query(A, A, http=Http("GET /v1/a", response_body="x"))', "has no field 'x' for the answer's body"),
    "body in the path": ('command(A, A, http=Http("POST /v1/{id}", body="id"))', "'id' in the path and as the body"),
    "command by GET": ('command(A, A, http="GET /v1/a")', "a GET changes nothing: declare the operation with query()"),
    "route of a stream": ('query(A, stream(A), http="GET /v1/a")', "An operation with a stream has no route"),
    "map in the query": ('query(Wide, A, http="GET /v1/a")', "where 'by_name' would be a query parameter, which a map cannot be"),
    "messages in the query": (
        'command(Wide, A, http=Http("POST /v1/a", body="by_name"))',
        "'parts' would be a query parameter, which a list of messages cannot be",
    ),
    "additional of additional": (
        'query(A, A, http=Http("GET /a", additional=(Http("GET /b", additional=("GET /c",)),)))',
        "'GET /b', which has additional routes of its own",
    ),
    "the same route twice": ('query(A, A, http=Http("GET /v1/a", additional=("GET /v1/a",)))', "match the same paths"),
    "routes that cross": (
        'query(A, A, http="GET /v1/{id}/x")\n  find = query(A, A, http="GET /v1/y/{id}")',
        "The routes 'GET /v1/{id}/x' of 'made.v1.Orders.Get' and 'GET /v1/y/{id}' of 'made.v1.Orders.Find' match the same paths",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_route_fails_with_the_contract(case: str) -> None:
    text, sentence = WRONG[case]
    with pytest.raises(SetupError) as raised:
        made(f"get = {text}", package="made.v1", module="made_v1")
    assert sentence in str(raised.value)


def test_narrower_routes_and_other_methods_live_together() -> None:
    module = made("""get = query(A, A, http="GET /v1/a/{id}")
  me = query(A, A, http="GET /v1/a/me")
  drop = command(A, A, http="DELETE /v1/a/{id}")
  cancel = command(A, A, http="POST /v1/a/{id}:cancel")
  find = query(A, A, http="POST /v1/a:search")
  wide = query(Wide, A, http=Http("POST /v1/wide", body="*"))""")
    assert len(module.Orders.operations) == 6


def test_two_services_of_an_app_cannot_have_one_route() -> None:
    services = []
    for name in ("one", "two"):
        module = made('get = query(A, A, http="GET /v1/shared/{id}")')
        service = Service(name, module.Orders)

        @service.handles(module.Orders.get)
        async def get(ctx: Any, request: Any) -> Any:
            return request

        services.append(service)
    with pytest.raises(SetupError, match="match the same paths"):
        App(*services)


PROTO_FIRST = """
from linkspan.routes import Http
from tests.unit.generated_routes_pb import GetOrderRequest, Order
class OrderService(ServiceContract):
  """


def proto_first(text: str) -> Any:
    return declare(PROTO_FIRST + text, package="gen.routes.v1", module="gen_routes_v1")


def test_proto_first_contract_brings_its_routes() -> None:
    module = proto_first("get_order = query(GetOrderRequest, Order)")
    operation = module.OrderService.get_order
    assert [str(route) for route in operation.routes] == ["GET /v1/orders/{order_id}", "GET /v1/{name=shops/*/orders/*}"]
    assert operation.http.response_body == "order"


def test_proto_first_route_may_be_repeated_but_not_changed() -> None:
    proto_first(
        'get_order = query(GetOrderRequest, Order, http=Http("GET /v1/orders/{order_id}", response_body="order",'
        ' additional=("GET /v1/{name=shops/*/orders/*}",)))'
    )
    with pytest.raises(SetupError, match="has a route that its"):
        proto_first('get_order = query(GetOrderRequest, Order, http="GET /v1/orders/{order_id}")')
    with pytest.raises(SetupError, match="has a route that its"):
        proto_first('get_bare = query(GetOrderRequest, Order, http="GET /v1/orders/{order_id}")')


def test_idempotency_level_stays_beside_the_route() -> None:
    module = made('get = query(A, A, http="GET /v1/a/{id}")')
    assert methods(module)["Get"].options.idempotency_level == MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS
