"""Contracts as `.proto` text: names, options, comments and the command that writes them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from linkspan.cli.commands import cli
from linkspan.contract import file_path
from linkspan.contracts.export import exported
from linkspan.errors import SetupError
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from pathlib import Path

SHOP = "examples.shop.contracts"


def text(module: Any) -> str:
    files = exported([module.contract], ["proto"])
    return str(files[file_path(module.contract.package)])


def run(*words: str, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, ["contracts", *words])
    if fails:
        assert isinstance(result.exception, SetupError)
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("shop.orders.v1", "shop/orders/v1/orders.proto"),
        ("shop.orders.v2beta1", "shop/orders/v2beta1/orders.proto"),
        ("shop.orders", "shop/orders/orders.proto"),
        ("v1", "v1/v1.proto"),
        ("shop", "shop/shop.proto"),
    ],
)
def test_file_lies_in_the_folder_of_its_package(package: str, path: str) -> None:
    assert file_path(package) == path


def test_every_kind_of_field_is_printed() -> None:
    printed = text(
        declare("""
class Colour(Enum, reserved=(4, "BLUE")):
    UNSPECIFIED = 0
    RED = 1
class Card(Message):
    number: str = field(1, pii=True)
class Order(Message, reserved=(40, 41, "total", "sum")):
    class Line(Message):
        sku: str = field(1)
    order_id: str = field(1, key=True, pii=True)
    note: str | None = field(2, default=None)
    lines: list[Line] = repeated(3)
    tags: dict[str, Int32] = mapping(4)
    how: Oneof[Literal["card"], Card] | Oneof[Literal["iban"], str] | None = oneof(card=8, iban=9)
    placed_at: Timestamp | None = field(10, default=None)
    class_: UInt64 = field(11)
    colour: Colour = field(12)
""")
    )
    for part in (
        'reserved 40, 41;\n  reserved "total", "sum";',
        "  string order_id = 1 [\n    (linkspan.field).key = true,\n    (linkspan.field).pii = true\n  ];",
        "  optional string note = 2;",
        "  repeated Line lines = 3;",
        "  map<string, int32> tags = 4;",
        "  oneof how {\n    Card card = 8;\n    string iban = 9;\n  }",
        "  google.protobuf.Timestamp placed_at = 10;",
        "  uint64 class = 11;",
        "  Colour colour = 12;\n\n  message Line {\n    string sku = 1;\n  }\n}",
        "  string number = 1 [(linkspan.field).pii = true];",
        'enum Colour {\n  reserved 4;\n  reserved "BLUE";\n\n  COLOUR_UNSPECIFIED = 0;\n  COLOUR_RED = 1;\n}',
        'import "google/protobuf/timestamp.proto";\nimport "linkspan/options.proto";',
    ):
        assert part in printed


def test_operations_carry_their_rules() -> None:
    printed = text(
        declare(
            """
class A(Message):
    x: str = field(1, key=True)
class Orders(ServiceContract):
    find = query(A, A, staleness=2, budget=0.5)
    watch = query(A, stream(A))
    place = command(A, A, answer="later", expires=60)
""",
            owner='the "shop" team\\n',
        )
    )
    for part in (
        "  rpc Find(A) returns (A) {\n    option idempotency_level = NO_SIDE_EFFECTS;\n",
        "    option (linkspan.method).staleness = 2;\n    option (linkspan.method).budget = 0.5;\n  }",
        "  rpc Watch(A) returns (stream A) {\n    option idempotency_level = NO_SIDE_EFFECTS;\n  }",
        '    option (linkspan.method).answer = "later";\n    option (linkspan.method).expires = 60;',
        'option (linkspan.file).owner = "the \\"shop\\" team\\\\n";',
    ):
        assert part in printed


def test_options_are_imported_only_where_they_are_used() -> None:
    assert "linkspan/options.proto" not in text(
        declare("class A(Message):\n x: str = field(1)\nclass Orders(ServiceContract):\n find = query(A, A)")
    )


def test_name_that_scoping_would_lead_astray_is_written_in_full() -> None:
    declare("class A(Message):\n x: str = field(1)", package="google.things.v1", module="astray_things")
    printed = text(
        declare(
            """
from astray_things import A
class Find(Message):
    class Item(Message):
        x: str = field(1)
    item: Item | None = field(1, default=None)
class Item(Message):
    find: Find | None = field(1, default=None)
    at: Timestamp | None = field(2, default=None)
class Holder(Message):
    class Item(Message):
        pass
    outer: Find.Item | None = field(1, default=None)
    thing: A | None = field(2, default=None)
class Items(ServiceContract):
    find = query(Find, Item)
""",
            package="astray.google.v1",
        )
    )
    for part in (
        "rpc Find(astray.google.v1.Find) returns (Item)",
        "  .google.protobuf.Timestamp at = 2;",
        "  Find.Item outer = 1;",
        "  .google.things.v1.A thing = 2;",
    ):
        assert part in printed


def test_contracts_that_are_used_come_along() -> None:
    __import__(f"{SHOP}.storefront_v1")
    files = exported([sys.modules[f"{SHOP}.storefront_v1"].contract], ["proto"])
    assert list(files) == ["buf.yaml", "linkspan/options.proto", "shop/orders/v1/orders.proto", "shop/storefront/v1/storefront.proto"]
    assert "  repeated shop.orders.v1.Line lines = 3;" in str(files["shop/storefront/v1/storefront.proto"])


def test_buf_yaml_lists_only_rules_that_names_break() -> None:
    good = declare(
        """
class GetOrderRequest(Message):
    x: str = field(1)
class GetOrderResponse(Message):
    x: str = field(1)
class Colour(Enum):
    UNSPECIFIED = 0
class OrderService(ServiceContract):
    get_order = query(GetOrderRequest, GetOrderResponse)
""",
        package="well.named.v1",
    )
    bad = declare(
        """
class get_it(Message):
    Not_snake: str = field(1)
    how: Oneof[Literal["a"], str] | None = oneof(a=8)
class HTTPColour(Enum):
    NONE = 0
class Orders(ServiceContract):
    get = query(get_it, get_it)
""",
        package="ill.named",
    )
    assert "ignore_only" not in str(exported([good.contract], ["proto"])["buf.yaml"])
    listed = str(exported([bad.contract], ["proto"])["buf.yaml"])
    assert [rule.strip(" :") for rule in listed.splitlines() if rule.strip(" :").isupper() and rule.endswith(":")] == [
        "ENUM_PASCAL_CASE",
        "ENUM_VALUE_PREFIX",
        "ENUM_ZERO_VALUE_SUFFIX",
        "FIELD_LOWER_SNAKE_CASE",
        "MESSAGE_PASCAL_CASE",
        "PACKAGE_VERSION_SUFFIX",
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME",
        "SERVICE_SUFFIX",
    ]


# --- the command


def test_command_prints_the_contract_alone() -> None:
    printed = run("export", f"{SHOP}.orders_v1")
    assert printed.startswith(f"// Written by `linkspan contracts export` from the Python module {SHOP}.orders_v1: change it there.\n")
    assert printed.count("syntax") == 1
    assert "// The customer has paid; the goods may go out.\nmessage OrderSettled {" in printed


@pytest.mark.parametrize("target", [SHOP, "examples.shop.app:app"])
def test_command_writes_all_contracts_of_a_package_or_an_app(target: str, tmp_path: Path) -> None:
    run("export", target, "--out", str(tmp_path), "--format", "proto, descriptors")
    found = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    names = ("inventory", "orders", "payments", "shipping", "storefront")
    assert found == {"buf.yaml", "linkspan/options.proto", "descriptors.binpb", *(f"shop/{name}/v1/{name}.proto" for name in names)}


def test_command_writes_openapi_and_json_schema(tmp_path: Path) -> None:
    run("export", f"{SHOP}.orders_v1", "--out", str(tmp_path), "--format", "openapi,json-schema")
    assert "/shop.orders.v1.Orders/GetOrder" in json.loads((tmp_path / "openapi.json").read_text())["paths"]
    schema = json.loads((tmp_path / "json-schema/shop.orders.v1.OrderPlaced.json").read_text())
    assert "orderId" in schema["$defs"]["shop.orders.v1.OrderPlaced"]["properties"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.at.all"], "There is no module 'nowhere.at.all' here: start in the folder that holds it."),
        (["linkspan.errors"], "'linkspan.errors' has no contract: name the module that has the line"),
        (["a b"], "The target 'a b' names no module: write it with dots"),
        (["examples/shop"], "The target 'examples/shop' names no module"),
        (["examples.shop.app:nothing"], "'examples.shop.app:nothing' is not an App"),
        ([SHOP, "--format", "proto,word"], "There is no format 'word': take some of proto,"),
        ([SHOP, "--format", "descriptors"], "'descriptors.binpb' is binary: name a folder with --out."),
        ([SHOP, "--out", "/dev/null"], "cannot be written"),
    ],
)
def test_command_says_what_to_do(words: list[str], sentence: str) -> None:
    assert sentence in run("export", *words, fails=True)
