"""What a message writes as JSON is what its schema allows, told by an independent validator."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from protobuf import message_to_json_value
from protobuf.wkt import Any as AnyMessage, FieldMask, Int64Value, ListValue, NullValue, StringValue, Struct, Value

from linkspan.contract import Contract
from linkspan.contracts.json_schema import json_schema
from linkspan.message import Message, Oneof, Timestamp, UInt64, field, mapping, oneof, repeated
from tests.unit.test_decode_properties import WHOLES, Part, Whole, few

contract = Contract("test.schema.v1")


class Customer(Message):
    """Who buys.

    Kept for as long as the law asks.
    """

    customer_id: str = field(1, key=True)
    """The number on the card."""
    mail: str = field(2, pii=True)
    """Where bills go."""
    contact: Oneof[Literal["phone"], str] | Oneof[Literal["address"], str] | None = oneof(phone=3, address=4, pii=True)
    """How to reach them."""
    points: UInt64 = field(5, default=0)
    counts: dict[int, str] = mapping(6)
    friends: list[Customer] = repeated(7)


class Wild(Message):
    limit: Int64Value | None = field(1, default=None)
    name: StringValue | None = field(2, default=None)
    mask: FieldMask | None = field(3, default=None)
    tree: Struct | None = field(4, default=None)
    values: ListValue | None = field(5, default=None)
    value: Value | None = field(6, default=None)
    packed: AnyMessage | None = field(7, default=None)
    nothing: NullValue = field(8, default=NullValue.NULL_VALUE)


def validator(message: type[Message]) -> Any:
    schema = json_schema(message)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


WHOLE = validator(Whole)
CUSTOMER = validator(Customer)


@few
@given(WHOLES)
def test_every_message_fits_its_schema(message: Whole) -> None:
    WHOLE.validate(json.loads(message.to_json()))


@few
@given(WHOLES)
def test_the_same_with_defaults_written_and_enums_as_numbers(message: Whole) -> None:
    WHOLE.validate(message_to_json_value(message, always_emit_implicit=True, print_enums_as_ints=True))


def test_well_known_types_fit() -> None:
    message = Wild(
        limit=Int64Value(value=3),
        name=StringValue(value="x"),
        mask=FieldMask(paths=["a.b", "c"]),
        tree=Struct.from_python({"a": [1, None, {"b": True}]}),
        values=ListValue.from_python([1, "x", None]),
        value=Value.from_python("x"),
    )
    validator(Wild).validate(json.loads(message.to_json()))
    properties = json_schema(Wild)["$defs"]["test.schema.v1.Wild"]["properties"]
    assert properties["limit"]["type"] == ["string", "integer"]
    assert properties["value"] == {"description": "Any JSON value."}
    assert properties["nothing"] == {"type": "null"}


REFUSED: dict[str, Any] = {
    "a number as text": {"customerId": 7},
    "negative unsigned": {"points": -1},
    "negative unsigned as text": {"points": "-1"},
    "beyond 64 bits": {"points": 2**64},
    "both cases of a oneof": {"phone": "1", "address": "2"},
    "a map key that is no number": {"counts": {"x": "1"}},
    "deep inside": {"friends": [{"friends": [{"points": 1.5}]}]},
    "no object": [],
}


@pytest.mark.parametrize("case", REFUSED)
def test_schema_refuses(case: str) -> None:
    assert not CUSTOMER.is_valid(REFUSED[case])


def test_schema_allows_numbers_for_64_bits_and_either_case() -> None:
    for good in ({"points": 7}, {"points": "7"}, {"phone": "1"}, {"address": "1"}, {}, {"counts": {"-3": "x"}}):
        CUSTOMER.validate(good)


def test_docs_and_marks_are_in_the_schema() -> None:
    schema = json_schema(Customer)["$defs"]["test.schema.v1.Customer"]
    assert schema["description"] == "Who buys.\n\nKept for as long as the law asks."
    fields = schema["properties"]
    assert fields["customerId"] == {"type": "string", "description": "The number on the card.", "x-linkspan-key": True}
    assert fields["mail"]["x-linkspan-pii"] is True
    assert fields["phone"]["description"] == "How to reach them."
    assert fields["phone"]["x-linkspan-pii"] is True
    assert fields["friends"]["items"] == {"$ref": "#/$defs/test.schema.v1.Customer"}


def test_schema_of_a_well_known_type_stands_alone() -> None:
    assert json_schema(Timestamp)["format"] == "date-time"
    assert json_schema(Part)["$ref"] == "#/$defs/test.properties.v1.Part"
