"""Every wrong declaration fails before the first message, with a sentence that says what to do."""

from __future__ import annotations

import sys

import pytest

from linkspan.errors import SetupError
from tests.unit.declaring import declare

WRONG = {
    "duplicate number": ("class A(Message):\n x: str = field(1)\n y: str = field(1)", "both have number 1: give each its own"),
    "duplicate number in a oneof": (
        'class A(Message):\n x: str = field(1)\n y: Oneof[Literal["a"], str] | Oneof[Literal["b"], int] | None = oneof(a=2, b=1)',
        "Fields 'x' and 'b' of 'A' both have number 1",
    ),
    "number 0": ("class A(Message):\n x: str = field(0)", "number 0: take a whole number from 1"),
    "negative number": ("class A(Message):\n x: str = field(-3)", "number -3: take a whole number from 1"),
    "number 19000": ("class A(Message):\n x: str = field(19000)", "take one outside 19000 to 19999"),
    "number 19999": ("class A(Message):\n x: str = field(19999)", "take one outside 19000 to 19999"),
    "number too large": ("class A(Message):\n x: str = field(536870912)", "number 536870912: take a whole number from 1 to 536870911"),
    "number is a bool": ("class A(Message):\n x: str = field(True)", "number True: take a whole number"),
    "number is a text": ("class A(Message):\n x: str = field('1')", "number '1': take a whole number"),
    "reserved number": ("class A(Message, reserved=(4,)):\n x: str = field(4)", "Number 4 of 'A.x' is reserved: take another"),
    "reserved name": ("class A(Message, reserved=('x',)):\n x: str = field(4)", "Name 'A.x' is reserved: take another"),
    "reserved enum number": ("class E(Enum, reserved=(1,)):\n A = 0\n B = 1", "Number 1 of 'E.B' is reserved"),
    "reserved number 0": ("class A(Message, reserved=(0,)):\n x: str = field(4)", "cannot reserve 0: list names, and numbers from 1 to"),
    "reserved twice": ("class A(Message, reserved=(5, 5)):\n x: str = field(4)", "cannot reserve 5: list names, and numbers"),
    "reserved float": ("class A(Message, reserved=(1.5,)):\n x: str = field(4)", "cannot reserve 1.5: list names, and numbers"),
    "reserved without a tuple": ("class A(Message, reserved=4):\n x: str = field(1)", "cannot be linked ('int' object is not iterable)"),
    "json collision": ("class A(Message):\n a_b: str = field(1)\n aB: str = field(2)", "are both 'aB' in JSON: rename one"),
    "json collision with digits": ("class A(Message):\n a_1: str = field(1)\n a1: str = field(2)", "are both 'a1' in JSON"),
    "enum does not begin with 0": ("class E(Enum):\n A = 1\nclass M(Message):\n e: E = field(1)", "does not begin with 0"),
    "enum zero is not first": ("class E(Enum):\n A = 1\n B = 0", "begin with 'UNSPECIFIED = 0'"),
    "enum with one number twice": ("class E(Enum):\n A = 0\n B = 1\n C = 1", "one number to 'C' and 'B': give each its own"),
    "enum number too large": ("class E(Enum):\n A = 0\n B = 2**31", "take a number that fits 32 bits"),
    "enum without values": ("class E(Enum):\n pass\nclass M(Message):\n e: E = field(1)", "begin with 'UNSPECIFIED = 0'"),
    "enum name that is renamed": ("class E(Enum):\n A = 0\n mro_ = 1", "'E.mro_' would be renamed"),
    "enum name with underscore": ("class E(Enum):\n A = 0\n Bé = 1", "'E.Bé' has a name that protobuf does not allow"),
    "default str": ("class A(Message):\n x: str = field(1, default='new')", "default 'new', but absent fields read as the zero value"),
    "default int": ("class A(Message):\n x: int = field(1, default=3)", "absent fields read as the zero value"),
    "default of another type": ("class A(Message):\n x: int = field(1, default='')", "absent fields read as the zero value"),
    "default of an optional": ("class A(Message):\n x: str | None = field(1, default='')", "absent fields read as None"),
    "default None of a plain field": ("class A(Message):\n x: str = field(1, default=None)", "absent fields read as the zero value"),
    "default enum": (
        "class E(Enum):\n A = 0\n B = 1\nclass M(Message):\n e: E = field(1, default=E.B)",
        "absent fields read as the zero value",
    ),
    "no field()": ("class A(Message):\n x: str", "Field 'A.x' has no number: write `= field(1)`"),
    "plain default": ("class A(Message):\n x: str = ''", "Field 'A.x' has no number"),
    "no annotation": ("class A(Message):\n x = field(1)", "Field 'A.x' has no type: write it before the `=`"),
    "set": ("class A(Message):\n x: set[str] = field(1)", "does not know, set: use list with repeated()"),
    "list without repeated": ("class A(Message):\n x: list[str] = field(1)", "write list[...] and repeated()"),
    "dict without mapping": ("class A(Message):\n x: dict[str, str] = field(1)", "write dict[..., ...] and mapping()"),
    "repeated without list": ("class A(Message):\n x: str = repeated(1)", "is repeated but not a list"),
    "repeated bare list": ("class A(Message):\n x: list = repeated(1)", "is repeated but not a list"),
    "repeated optional": ("class A(Message):\n x: list[str | None] = repeated(1)", "does not know, Union"),
    "mapping without dict": ("class A(Message):\n x: list[str] = mapping(1)", "is a mapping but not a dict"),
    "map key float": ("class A(Message):\n x: dict[float, str] = mapping(1)", "use str, bool or an integer"),
    "map key bytes": ("class A(Message):\n x: dict[bytes, str] = mapping(1)", "use str, bool or an integer"),
    "map key enum": ("class E(Enum):\n A = 0\nclass M(Message):\n x: dict[E, str] = mapping(1)", "use str, bool or an integer"),
    "datetime": ("import datetime\nclass A(Message):\n x: datetime.datetime = field(1)", "use Timestamp and Timestamp.from_datetime()"),
    "timedelta": ("import datetime\nclass A(Message):\n x: datetime.timedelta = field(1)", "use Duration and Duration.from_timedelta()"),
    "decimal": ("import decimal\nclass A(Message):\n x: decimal.Decimal = field(1)", "use int in the smallest unit, or str"),
    "any": ("class A(Message):\n x: Any = field(1)", "a type that protobuf does not know"),
    "several types": ("class A(Message):\n x: int | str = field(1)", "can be of several types: use oneof()"),
    "several types or none": ("class A(Message):\n x: int | str | None = field(1)", "can be of several types: use oneof()"),
    "message without None": (
        "class B(Message):\n y: str = field(1)\nclass A(Message):\n x: B = field(1)",
        "add `| None` and `default=None`",
    ),
    "type only for checkers": (
        "if TYPE_CHECKING:\n from shop import Line\nclass A(Message):\n x: 'Line | None' = field(1)",
        "names the type 'Line', which its module does not have at run time: import it outside `if TYPE_CHECKING:`",
    ),
    "hides a method": ("class A(Message):\n to_binary: str = field(1)", "would hide a part of every message"),
    "hides desc": ("class A(Message):\n desc: str = field(1)", "would hide a part of every message"),
    "self": ("class A(Message):\n self: str = field(1)", "would hide a part of every message"),
    "private": ("class A(Message):\n _x: str = field(1)", "start with a letter"),
    "ext": ("class A(Message):\n ext_x: str = field(1)", "renamed by protobuf"),
    "trailing underscore": ("class A(Message):\n x_: str = field(1)", "ends with '_', which only Python's keywords may"),
    "not ascii": ("class A(Message):\n größe: str = field(1)", "a name that protobuf does not allow"),
    "subclass of a message": ("class A(Message):\n x: str = field(1)\nclass B(A):\n y: str = field(2)", "messages cannot inherit fields"),
    "subclass of a linked message": (
        "class A(Message):\n x: str = field(1)\nA(x='')\nclass B(A):\n y: str = field(2)",
        "'B' inherits from A, but messages cannot inherit fields",
    ),
    "two keys": ("class A(Event):\n x: str = field(1, key=True)\n y: str = field(2, key=True)", "has 2 key fields ('x', 'y'): mark one"),
    "key optional": ("class A(Event):\n x: str | None = field(1, key=True)", "cannot be the key"),
    "key float": ("class A(Event):\n x: float = field(1, key=True)", "cannot be the key"),
    "key bytes": ("class A(Event):\n x: bytes = field(1, key=True)", "cannot be the key"),
    "key message": ("class A(Event):\n x: Timestamp | None = field(1, key=True)", "cannot be the key"),
    "key list": ("class A(Event):\n x: list[str] = field(1, key=True)", "write list[...] and repeated()"),
    "oneof without None": ('class A(Message):\n x: Oneof[Literal["a"], str] = oneof(a=1)', "does not name the cases of its oneof"),
    "oneof case missing": ('class A(Message):\n x: Oneof[Literal["a"], str] | None = oneof(a=1, b=2)', "does not name the cases"),
    "oneof with field()": ('class A(Message):\n x: Oneof[Literal["a"], str] | None = field(1)', "declare it with oneof()"),
    "oneof case as field": (
        'class A(Message):\n a: str = field(1)\n x: Oneof[Literal["a"], str] | None = oneof(a=2)',
        "uses the name 'a' twice: rename one",
    ),
    "oneof named as its case": ('class A(Message):\n a: Oneof[Literal["a"], str] | None = oneof(a=2)', "uses the name 'a' twice"),
    "enums with one prefix": (
        "class AB(Enum):\n X = 0\nclass Ab(Enum):\n X = 0",
        "Enums 'AB' and 'Ab' both have the value 'AB_X': rename one of",
    ),
    "two types with one name": (
        "class A(Message):\n x: str = field(1)\nclass A(Message):\n x: str = field(1)",
        "two types 'A': rename one",
    ),
    "nested in a plain class": ("class Out:\n class A(Message):\n  x: str = field(1)", "nested in a class that is no message"),
    "entry name taken": (
        "class A(Message):\n x: dict[str, str] = mapping(1)\n class XEntry(Message):\n  y: str = field(1)",
        "uses the name 'XEntry' twice",
    ),
}


@pytest.mark.parametrize("postponed", [False, True], ids=["now", "postponed"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_declaration_says_what_to_do(case: str, postponed: bool) -> None:
    text, sentence = WRONG[case]
    with pytest.raises(SetupError) as raised:
        declare(text, postponed=postponed).contract.link()
    assert sentence in str(raised.value)


def test_service_contract_fails_at_once() -> None:
    with pytest.raises(SetupError, match=r"'A\.x' has a type"):
        declare("class A(Message):\n x: set[str] = field(1)\nclass Orders(ServiceContract):\n get = query(A, A)")


def test_link_error_is_raised_again() -> None:
    module = declare("class A(Message):\n x: set[str] = field(1)\nclass B(Message):\n y: str = field(1)")
    sentences = set[str]()
    for use in (module.contract.link, module.A, lambda: module.B(y="1"), module.B.desc, lambda: module.B.from_binary(b"")):
        with pytest.raises(SetupError) as raised:
            use()
        sentences.add(str(raised.value))
    assert len(sentences) == 1


def test_missing_type_may_come_later() -> None:
    module = declare("class A(Message):\n x: 'B | None' = field(1)")
    with pytest.raises(SetupError, match="names the type 'B'"):
        module.contract.link()
    exec("class B(Message):\n y: str = field(1)", vars(module))
    assert module.A(x=module.B(y="1")).x.y == "1"


@pytest.mark.parametrize("kind", ["Message", "Event", "Enum", "ServiceContract"])
def test_module_without_contract(kind: str) -> None:
    with pytest.raises(SetupError, match='write `contract = Contract\\("…"\\)` at the top'):
        declare(f"del contract\nclass A({kind}):\n pass")


@pytest.mark.parametrize("package", ["", "Shop", "shop.", ".shop", "shop-orders", "shop.1", "shop v1"])
def test_wrong_package(package: str) -> None:
    with pytest.raises(SetupError, match="is no proto package: write lower-case words"):
        declare(f"Contract({package!r})")


def test_two_contracts_of_one_package() -> None:
    declare("", package="twice.v1", module="first_of_two")
    with pytest.raises(SetupError, match=r"'twice\.v1' is declared by 'first_of_two' and by 'second_of_two': keep one"):
        declare("", package="twice.v1", module="second_of_two")


def test_module_loaded_anew_keeps_its_package() -> None:
    declare("class A(Message):\n x: str = field(1)", package="again.v1", module="loaded_again")
    assert declare("class A(Message):\n x: str = field(1)", package="again.v1", module="loaded_again").A(x="1").x == "1"


def test_package_is_free_when_its_module_is_gone() -> None:
    first = declare("", package="gone.v1", module="gone_module")
    del sys.modules["gone_module"]
    assert declare("", package="gone.v1", module="other_module").contract.package == first.contract.package


def test_two_contracts_in_one_module() -> None:
    with pytest.raises(SetupError, match=r"has two contracts, 'one.v1' and 'two.v1': move one out"):
        declare("other = Contract('two.v1')", package="one.v1")


def test_contracts_in_a_circle() -> None:
    left = declare("class A(Message):\n x: 'B | None' = field(1)", package="left.v1", module="left_module")
    right = declare("from left_module import A\nclass B(Message):\n y: A | None = field(1)", package="right.v1")
    left.B = right.B
    with pytest.raises(SetupError, match=r"in a circle, 'left\.v1' -> 'right\.v1' -> 'left\.v1': move the shared types"):
        left.contract.link()
    with pytest.raises(SetupError, match="in a circle"):
        right.B()


def test_message_and_event_have_no_instances() -> None:
    module = declare("")
    for root in (module.Message, module.Event):
        with pytest.raises(TypeError, match="has no fields: declare a class of your own"):
            root()


def test_unknown_class_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="reservd"):
        declare("class A(Message, reservd=(1,)):\n x: str = field(1)")


def test_misspelt_attributes_are_errors() -> None:
    module = declare("class A(Message):\n x: str = field(1)")
    with pytest.raises(AttributeError, match="nope"):
        _ = module.A.nope
    message = module.A(x="1")
    with pytest.raises(AttributeError, match="nope"):
        message.nope = 1
    with pytest.raises(TypeError, match="nope"):
        module.A(nope=1)
