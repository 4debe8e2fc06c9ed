"""The document describes each operation as it is served, and the official validator finds nothing wrong with it."""

from __future__ import annotations

from typing import Any

from openapi_spec_validator import validate

from linkspan.contract import Contract
from linkspan.contracts.openapi import openapi
from linkspan.message import Message, Timestamp, field, repeated
from linkspan.operation import ServiceContract, command, query, stream
from linkspan.routes import Http

contract = Contract("test.openapi.v2")


class GetOrder(Message):
    order_id: str = field(1)


class Order(Message):
    """What was bought."""

    order_id: str = field(1)
    part: Order | None = field(2, default=None)


class Orders(ServiceContract):
    """All about orders."""

    get_order = query(GetOrder, Order)
    """One order.

    By its number.
    """
    place_order = command(Order, Order)
    watch = query(GetOrder, stream(Order))


class Stock(ServiceContract):
    take = command(Order, Order)


PATH = "/test.openapi.v2.Orders/"


def test_document_is_valid() -> None:
    validate(openapi([contract]))
    validate(openapi([]))


def test_document_has_all_services_of_a_contract_once() -> None:
    document = openapi([contract, Orders])
    assert [tag["name"] for tag in document["tags"]] == ["test.openapi.v2.Orders", "test.openapi.v2.Stock", "test.openapi.v2.Shelves"]
    assert document["tags"][0]["description"] == "All about orders."
    assert document["info"] == {"title": "test.openapi.v2", "version": "v2"}
    assert [tag["name"] for tag in openapi([Stock])["tags"]] == ["test.openapi.v2.Stock"]


def test_title_version_and_servers_can_be_given() -> None:
    document = openapi([Orders], title="Orders", version="2.1", servers=["https://api.example"])
    assert document["info"] == {"title": "Orders", "version": "2.1"}
    assert document["servers"] == [{"url": "https://api.example"}]
    validate(document)


def test_query_is_called_by_post_and_by_get() -> None:
    document = openapi([Orders])
    validate(document)
    path = document["paths"][PATH + "GetOrder"]
    assert path["post"]["operationId"] == "test.openapi.v2.Orders.GetOrder"
    assert path["post"]["summary"] == "One order."
    schema = path["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/test.openapi.v2.GetOrder"}
    assert {"message", "encoding", "connect"} <= {parameter.get("name") for parameter in path["get"]["parameters"]}


def test_command_is_called_by_post_with_a_key() -> None:
    path = openapi([Orders])["paths"][PATH + "PlaceOrder"]
    assert list(path) == ["post"]
    assert {"$ref": "#/components/parameters/idempotency-key"} in path["post"]["parameters"]
    assert path["post"]["responses"]["default"] == {"$ref": "#/components/responses/Error"}


def test_stream_has_its_own_content_type() -> None:
    path = openapi([Orders])["paths"][PATH + "Watch"]
    assert list(path) == ["post"]
    assert list(path["post"]["responses"]["200"]["content"]) == ["application/connect+json", "application/connect+proto"]


def test_types_are_components() -> None:
    schemas: dict[str, Any] = openapi([Orders])["components"]["schemas"]
    assert list(schemas) == ["test.openapi.v2.GetOrder", "test.openapi.v2.Order", "connect.error"]
    assert schemas["test.openapi.v2.Order"]["description"] == "What was bought."
    assert schemas["test.openapi.v2.Order"]["properties"]["part"] == {"$ref": "#/components/schemas/test.openapi.v2.Order"}
    assert len(schemas["connect.error"]["properties"]["code"]["enum"]) == 16


class Shelf(Message):
    name: str = field(1)
    title: str = field(2)
    """What stands on it."""
    order: Order | None = field(3, default=None)
    tags: list[str] = repeated(4)
    at: Timestamp | None = field(5, default=None)


class Shelves(ServiceContract):
    get = query(Shelf, Shelf, http=Http("GET /v1/shelves/{name}", additional=("GET /v1/{name=halls/*/shelves/**}:peek",)))
    drop = command(Shelf, Shelf, http="DELETE /v1/shelves/{title}")
    put = command(Shelf, Shelf, http="PUT /v1/shelves/{name}")
    part = command(Shelf, Shelf, http=Http("PATCH /v1/shelves/{order.order_id}", body="order", response_body="tags"))
    search = query(Shelf, Shelf, http="POST /v1/shelves:search")
    ping = command(Shelf, Shelf, http=Http("POST /v1/*/ping", body=""))


def routes() -> dict[str, Any]:
    document = openapi([Shelves])
    validate(document)
    return document


def named(operation: dict[str, Any], place: str) -> dict[str, Any]:
    return {parameter["name"]: parameter for parameter in operation["parameters"] if parameter.get("in") == place}


def test_routes_are_paths() -> None:
    document = routes()
    paths = {path: sorted(methods) for path, methods in document["paths"].items() if not path.startswith("/test.")}
    assert paths == {
        "/v1/shelves/{name}": ["delete", "get", "patch", "put"],
        "/v1/halls/{name_1}/shelves/{name_2}:peek": ["get"],
        "/v1/shelves:search": ["post"],
        "/v1/{segment_2}/ping": ["post"],
    }
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_parameters_of_a_route() -> None:
    get = routes()["paths"]["/v1/shelves/{name}"]["get"]
    assert list(named(get, "path")) == ["name"]
    query_names = named(get, "query")
    assert list(query_names) == ["title", "order.orderId", "tags", "at"]
    assert query_names["title"]["description"] == "What stands on it."
    assert query_names["tags"]["explode"] is True
    assert query_names["at"]["schema"]["format"] == "date-time"
    drop = routes()["paths"]["/v1/shelves/{name}"]["delete"]
    assert list(named(drop, "path")) == ["name"]
    assert "name" in named(drop, "query")
    assert {"$ref": "#/components/parameters/idempotency-key"} in drop["parameters"]


def test_body_of_a_route_is_what_the_path_leaves() -> None:
    path = routes()["paths"]["/v1/shelves/{name}"]
    put = path["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(put["properties"]) == ["title", "order", "tags", "at"]
    assert not named(path["put"], "query")
    part = path["patch"]
    assert part["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/test.openapi.v2.Order"}
    assert part["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert "requestBody" not in path["get"]
