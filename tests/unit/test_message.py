"""Messages as users meet them: construct, read, copy, pickle, compare, print, encode and decode."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from protobuf.wkt import FileDescriptorSet

from linkspan.contract import Contract
from linkspan.contracts.comments import comments
from linkspan.errors import Code, Error
from linkspan.message import (
    Duration,
    Enum,
    Event,
    Fixed32,
    Fixed64,
    Float32,
    Int32,
    Message,
    Oneof,
    SFixed32,
    SFixed64,
    SInt32,
    SInt64,
    Timestamp,
    UInt32,
    UInt64,
    decode,
    decode_json,
    field,
    has_key,
    is_event,
    key_of,
    mapping,
    oneof,
    package_of,
    redacted,
    repeated,
    traits_of,
    type_name,
)
from linkspan.options import ext_file
from tests.unit.declaring import declare

contract = Contract("test.message.v1")


class Colour(Enum):
    UNSPECIFIED = 0
    RED = 1
    DARK_BLUE = 5


class Scalars(Message):
    text: str = field(1, default="")
    raw: bytes = field(2, default=b"")
    flag: bool = field(3, default=False)
    i64: int = field(4, default=0)
    f64: float = field(5, default=0.0)
    i32: Int32 = field(6, default=0)
    u32: UInt32 = field(7, default=0)
    u64: UInt64 = field(8, default=0)
    s32: SInt32 = field(9, default=0)
    s64: SInt64 = field(10, default=0)
    x32: Fixed32 = field(11, default=0)
    x64: Fixed64 = field(12, default=0)
    sx32: SFixed32 = field(13, default=0)
    sx64: SFixed64 = field(14, default=0)
    f32: Float32 = field(15, default=0.0)
    colour: Colour = field(16, default=Colour.UNSPECIFIED)


class Optionals(Message):
    text: str | None = field(1, default=None)
    raw: bytes | None = field(2, default=None)
    flag: bool | None = field(3, default=None)
    i64: int | None = field(4, default=None)
    f64: float | None = field(5, default=None)
    i32: Int32 | None = field(6, default=None)
    colour: Colour | None = field(7, default=None)
    part: Scalars | None = field(8, default=None)
    class_: str | None = field(9, default=None)


class Maps(Message):
    text: dict[str, str] = mapping(1)
    flag: dict[bool, int] = mapping(2)
    i64: dict[int, Scalars] = mapping(3)
    i32: dict[Int32, Colour] = mapping(4)
    u32: dict[UInt32, bytes] = mapping(5)
    u64: dict[UInt64, float] = mapping(6)
    s32: dict[SInt32, Float32] = mapping(7)
    s64: dict[SInt64, Timestamp] = mapping(8)
    x32: dict[Fixed32, bool] = mapping(9)
    x64: dict[Fixed64, Int32] = mapping(10)
    sx32: dict[SFixed32, int] = mapping(11)
    sx64: dict[SFixed64, int] = mapping(12)


class Lists(Message):
    texts: list[str] = repeated(1)
    numbers: list[Int32] = repeated(2)
    colours: list[Colour] = repeated(3)
    parts: list[Scalars] = repeated(4)
    times: list[Timestamp] = repeated(5)


class Tree(Message):
    name: str = field(1)
    children: list[Tree] = repeated(2)
    owner: Forest | None = field(3, default=None)

    class Leaf(Message):
        colour: Colour = field(1)

        class Shape(Enum):
            UNSPECIFIED = 0
            ROUND = 1

        shape: Shape = field(2, default=Shape.UNSPECIFIED)

    leaves: list[Leaf] = repeated(4)

    @property
    def size(self) -> int:
        return 1 + sum(child.size for child in self.children)


class Forest(Message):
    trees: dict[str, Tree] = mapping(1)


CardPay = Oneof[Literal["card"], Scalars]
IbanPay = Oneof[Literal["iban"], str]


class Payment(Message, reserved=(4, "total")):
    how: CardPay | IbanPay | None = oneof(card=8, iban=9)
    at: Timestamp | None = field(1, default=None)
    within: Duration | None = field(2, default=None)


class Person(Message):
    name: str = field(1, pii=True)
    mails: list[str] = repeated(2, pii=True)
    phones: dict[str, str] = mapping(3, pii=True)
    how: Oneof[Literal["nick"], str] | Oneof[Literal["title"], str] | None = oneof(nick=4, title=5, pii=True)
    city: str = field(6, default="")
    friend: Person | None = field(7, default=None)
    others: list[Person] = repeated(8)
    by_role: dict[str, Person] = mapping(9)
    wrapped: Oneof[Literal["someone"], Person] | None = oneof(someone=10)


class Placed(Event):
    order_id: str = field(1, key=True)
    """The order."""
    note: str = field(2, default="")


class Numbered(Event):
    number: int = field(1, key=True)


class Coloured(Event):
    colour: Colour = field(1, key=True)


class Nothing(Message):
    """Has no fields."""


class Shadow(Message):
    class Colour(Enum):
        UNSPECIFIED = 0
        GREEN = 1

    class Part(Message):
        colour: Shadow.Colour = field(1)

    own: Colour = field(1)
    bytes: bytes = field(2)  # noqa: A003 - the point of the test


SCALARS = {
    "text": "größer",
    "raw": b"\x00\xff",
    "flag": True,
    "i64": -(2**63),
    "f64": 1.5,
    "i32": -(2**31),
    "u32": 2**32 - 1,
    "u64": 2**64 - 1,
    "s32": -7,
    "s64": -(2**62),
    "x32": 2**32 - 1,
    "x64": 2**64 - 1,
    "sx32": -1,
    "sx64": -1,
    "f32": 0.25,
    "colour": Colour.DARK_BLUE,
}
PART = Scalars(text="a", f64=-0.5)
EXAMPLES: list[Message] = [
    Scalars(),
    Scalars(**SCALARS),  # type: ignore[arg-type]
    Optionals(),
    Optionals(text="", raw=b"", flag=False, i64=0, f64=0.0, i32=0, colour=Colour.UNSPECIFIED, part=Scalars(), class_=""),
    Maps(text={"a": "b"}, flag={True: 1, False: 2}, i64={-1: PART}, i32={1: Colour.RED}, u32={1: b"x"}, u64={2**64 - 1: 0.5}),
    Maps(s32={-1: 0.25}, s64={-1: Timestamp(seconds=1)}, x32={1: True}, x64={1: -1}, sx32={-1: 2}, sx64={-(2**63): 3}),
    Lists(texts=["", "b"], numbers=[0, -1], colours=[Colour.RED, Colour.UNSPECIFIED], parts=[PART, Scalars()], times=[Timestamp()]),
    Tree(name="a", children=[Tree(name="b"), Tree(name="c", children=[Tree(name="d")])], leaves=[Tree.Leaf(colour=Colour.RED)]),
    Forest(trees={"x": Tree(name="a", owner=Forest(trees={"y": Tree(name="b")}))}),
    Payment(how=CardPay("card", PART), at=Timestamp(seconds=5, nanos=6), within=Duration(seconds=-5)),
    Payment(how=IbanPay("iban", "")),
    Person(name="Ann", mails=["a@b"], phones={"home": "1"}, how=Oneof("nick", "A"), city="Ulm"),
    Placed(order_id="7"),
]
each_example = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)


def absent_as_none(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ("text", "raw", "flag", "i64", "f64", "i32", "colour", "part", "class_")}


@each_example
def test_every_way_through_gives_an_equal_message(message: Message) -> None:
    cls = type(message)
    assert cls.from_binary(message.to_binary()) == message
    assert cls.from_json(message.to_json()) == message
    assert decode(cls, message.to_binary()) == message
    assert decode_json(cls, message.to_json()) == message
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.copy(message) == message
    assert copy.deepcopy(message) == message


def test_scalars_keep_their_values() -> None:
    read = Scalars.from_binary(EXAMPLES[1].to_binary())
    assert {name: getattr(read, name) for name in SCALARS} == SCALARS
    assert type(read.colour) is Colour


def test_absent_scalars_read_as_zero() -> None:
    empty = Scalars.from_binary(b"")
    assert (empty.text, empty.raw, empty.flag, empty.i64, empty.f64) == ("", b"", False, 0, 0.0)
    assert empty.colour is Colour.UNSPECIFIED
    assert Tree.from_binary(b"").name == ""


@pytest.mark.parametrize("empty", [Optionals(), Optionals.from_binary(b""), Optionals.from_json("{}"), copy.deepcopy(Optionals())])
def test_absent_optionals_read_none(empty: Optionals) -> None:
    assert set(absent_as_none(empty).values()) == {None}
    assert empty.to_binary() == b""


def test_present_zero_is_not_absent() -> None:
    read = Optionals.from_binary(EXAMPLES[3].to_binary())
    assert None not in absent_as_none(read).values()
    assert read != Optionals()
    assert read.has_field("text")
    assert read.has_field("class")


@pytest.mark.parametrize("name", ["text", "raw", "flag", "i64", "f64", "i32", "colour", "part"])
def test_none_clears_an_optional(name: str) -> None:
    by_assignment, by_call, by_descriptor = (copy.deepcopy(EXAMPLES[3]) for _ in range(3))
    setattr(by_assignment, name, None)
    by_call.clear_field(name)
    del by_descriptor[next(f for f in Optionals.desc().fields if f.name == name)]
    for message in (by_assignment, by_call, by_descriptor):
        assert getattr(message, name) is None
        assert not message.has_field(name)
        assert message == by_assignment
        assert getattr(Optionals.from_binary(message.to_binary()), name) is None
        assert getattr(copy.copy(message), name) is None
        assert getattr(pickle.loads(pickle.dumps(message)), name) is None


def test_none_given_to_the_constructor_is_absent() -> None:
    assert Optionals(text=None) == Optionals()
    assert not Optionals(text=None).has_field("text")


def test_assigned_optional_is_present() -> None:
    message = Optionals()
    message.i64 = 0
    assert message.has_field("i64")
    assert Optionals.from_binary(message.to_binary()).i64 == 0


def test_copy_is_shallow_and_deepcopy_deep() -> None:
    message = Lists(texts=["a"])
    shallow, deep = copy.copy(message), copy.deepcopy(message)
    message.texts.append("b")
    assert shallow.texts == ["a", "b"]
    assert deep.texts == ["a"]


def test_different_messages_are_unequal() -> None:
    assert Scalars(text="a") != Scalars(text="b")
    assert Placed(order_id="") != Numbered(number=0)
    assert Optionals(text="") != Optionals()


def test_lists_and_maps_are_not_shared() -> None:
    first, second = Lists(), Lists()
    first.texts.append("a")
    assert second.texts == []
    assert Lists.from_binary(b"").texts == []


def test_methods_and_nested_types_work() -> None:
    tree = EXAMPLES[7]
    assert isinstance(tree, Tree)
    assert tree.size == 4
    assert type_name(Tree.Leaf) == "test.message.v1.Tree.Leaf"
    assert Tree.Leaf.Shape.desc().type_name == "test.message.v1.Tree.Leaf.Shape"
    assert isinstance(Tree.from_binary(tree.to_binary()).leaves[0], Tree.Leaf)


def test_oneof_can_be_matched() -> None:
    match Payment.from_binary(EXAMPLES[9].to_binary()).how:
        case Oneof(value=Scalars() as card):
            assert card == PART
        case other:
            raise AssertionError(other)


def test_unknown_enum_number_is_kept() -> None:
    message = Scalars.from_binary(b"\x80\x01\x63")
    assert message.colour == 99
    assert Scalars.from_binary(message.to_binary()).colour == 99
    assert str(Colour(99)) == "99"
    assert pickle.loads(pickle.dumps(Colour(99))) == 99
    assert pickle.loads(pickle.dumps(Colour.RED)) is Colour.RED


def test_unknown_field_is_kept() -> None:
    data = Scalars(text="a", i64=5).to_binary()
    assert Scalars.from_binary(Placed.from_binary(data).to_binary()).i64 == 5


def test_timestamp_to_and_from_datetime() -> None:
    moment = datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)
    payment = Payment(at=Timestamp.from_datetime(moment), within=Duration.from_timedelta(timedelta(days=-1, microseconds=3)))
    read = Payment.from_binary(payment.to_binary())
    assert read.at is not None
    assert read.at.to_datetime() == moment
    assert read.within is not None
    assert read.within.to_timedelta() == timedelta(days=-1, microseconds=3)
    assert '"at":"2026-11-22T03:04:05.678901Z"' in payment.to_json()


def test_json_uses_protobuf_names() -> None:
    message = Optionals(class_="x", i32=3, colour=Colour.DARK_BLUE)
    assert message.to_json() == '{"i32":3,"colour":"COLOUR_DARK_BLUE","class":"x"}'
    assert decode_json(Placed, '{"orderId":"7"}').order_id == "7"
    assert decode_json(Placed, '{"order_id":"7"}').order_id == "7"


def test_repr_redacts_personal_data_at_every_depth() -> None:
    secret = Person(name="S1", mails=["S2"], phones={"S3": "S4"}, how=Oneof("nick", "S5"), city="Ulm")
    message = Person(
        name="S6",
        city="Bonn",
        friend=secret,
        others=[secret],
        by_role={"boss": secret},
        wrapped=Oneof[Literal["someone"], Person]("someone", secret),
    )
    one = "Person(name=***, mails=***, phones=***, how=***, city='Ulm')"
    inside = f"friend={one}, others=[{one}], by_role={{'boss': {one}}}, wrapped=Oneof(field='someone', value={one})"
    expected = f"Person(name=***, city='Bonn', {inside})"
    assert repr(message) == str(message) == redacted(message) == f"{message}" == expected
    assert repr(Person()) == "Person()"


def test_repr_shows_the_rest() -> None:
    assert repr(Placed(order_id="7")) == "Placed(order_id='7')"
    assert repr(Optionals(text="", i64=0)) == "Optionals(text='', i64=0)"


def test_keys_and_names() -> None:
    assert key_of(Placed(order_id="7")) == "7"
    assert key_of(Placed(order_id="")) == ""
    assert key_of(Numbered(number=-3)) == "-3"
    assert key_of(Coloured(colour=Colour.RED)) == "1"
    assert key_of(Scalars(text="a")) is None
    assert key_of(Timestamp(seconds=1)) is None
    assert [has_key(cls) for cls in (Placed, Scalars, Timestamp)] == [True, False, False]
    assert [is_event(cls) for cls in (Placed, Scalars, Timestamp)] == [True, False, False]
    assert (type_name(Placed), package_of(Placed)) == ("test.message.v1.Placed", "test.message.v1")
    assert (type_name(Timestamp), package_of(Timestamp)) == ("google.protobuf.Timestamp", "google.protobuf")
    assert traits_of(Person).pii == {"name", "mails", "phones", "how"}
    assert Placed.__linkspan__ is traits_of(Placed)


def test_contract_lists_its_types() -> None:
    assert contract.events == (Placed, Numbered, Coloured)
    assert Scalars in contract.messages
    assert contract.enums == (Colour, Tree.Leaf.Shape, Shadow.Colour)
    assert {Scalars.desc().file.name, *(file.name for file in contract.files)} == {"test/message/v1/message.proto"}
    assert comments(__name__)["test.message.v1.Placed.order_id"] == "The order."


def test_descriptor_reserves_and_marks() -> None:
    payment = next(m for m in contract.descriptor().message_type if m.name == "Payment")
    assert [(r.start, r.end) for r in payment.reserved_range] == [(4, 5)]
    assert payment.reserved_name == ["total"]
    again = FileDescriptorSet.from_binary(FileDescriptorSet(file=[contract.descriptor()]).to_binary())
    assert again.file[0].package == "test.message.v1"


def test_after_the_link_no_hook_of_ours_is_left() -> None:
    Scalars()
    hooks = {"__getattr__", "__getattribute__", "__call__", "__init__", "__instancecheck__"}
    assert not hooks & {name for cls in type(Scalars).__mro__ if cls.__module__.startswith("linkspan") for name in vars(cls)}
    assert not {"__setattr__", "__delitem__", "__init__", "__new__", "__getattribute__"} & {*vars(Scalars), *vars(Message)}


def test_message_without_fields() -> None:
    assert Nothing() == Nothing.from_binary(Nothing().to_binary())
    assert repr(Nothing()) == "Nothing()"


def test_type_names_mean_what_python_means() -> None:
    assert Shadow.Part.desc().fields[0].proto.type_name == ".test.message.v1.Shadow.Colour"
    inside = {found.name: found.proto.type_name for found in Shadow.desc().fields}
    assert inside == {"own": ".test.message.v1.Shadow.Colour", "bytes": ""}
    assert Scalars.desc().fields[-1].proto.type_name == ".test.message.v1.Colour"


def test_threads_meet_an_unlinked_contract() -> None:
    fields = "\n".join(f" f{number}: str | None = field({number}, default=None)" for number in range(1, 100))
    for _ in range(5):
        event = f"class A(Event):\n key: str = field(1000, key=True)\n{fields}"
        module = declare(f"{event}\nclass B(Message):\n a: A | None = field(1, default=None)")
        together = threading.Barrier(6)

        def use(kind: int, module: Any = module, together: threading.Barrier = together) -> Any:
            together.wait()
            match kind % 3:
                case 0:
                    return module.A(key="1").f1
                case 1:
                    return None if key_of(module.A.from_binary(b"")) == "" else "wrong key"
                case _:
                    return None if has_key(module.A) and traits_of(module.A).optional else "wrong traits"

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(use, range(6))) == [None] * 6


def test_owner_is_exported() -> None:
    file = declare("", owner="team-a").contract.descriptor()
    assert file.options[ext_file].owner == "team-a"
    assert "linkspan/options.proto" in file.dependency


def test_message_declared_after_the_link_works() -> None:
    contract.link()

    class Late(Message):
        placed: Placed | None = field(1, default=None)
        tree: Tree.Leaf | None = field(2, default=None)

    late = Late(placed=Placed(order_id="1"))
    assert Late.from_binary(late.to_binary()) == late
    assert type_name(Late) == "test.message.v1.Late"
    assert "Late" in [m.name for m in contract.descriptor().message_type]


WRONG_BYTES = {
    "cut off": b"\x0a\x05ab",
    "not UTF-8": b"\x0a\x02\xff\xfe",
    "wire type 7": b"\x0f",
    "field number 0": b"\x00\x01",
    "endless varint": b"\x20" + b"\xff" * 11,
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "group without end": b"\x0b",
    "stray end of a group": b"\x0c",
}


@pytest.mark.parametrize("case", WRONG_BYTES)
def test_wrong_bytes_are_an_invalid_argument(case: str) -> None:
    with pytest.raises(Error) as raised:
        decode(Scalars, WRONG_BYTES[case])
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert "Message 'test.message.v1.Scalars' could not be decoded" in raised.value.message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"SECRET"',
        '{"text":7}',
        '{"i64":"SECRET"}',
        '{"i32":2147483648}',
        '{"raw":"SECRET"}x',
        '{"raw":"%"}',
        '{"colour":[]}',
        b'{"text":"\xff"}',
        '{"text":"a","text":7}',
        '{"i64":1e400}',
    ],
)
def test_wrong_json_is_an_invalid_argument(text: str | bytes) -> None:
    with pytest.raises(Error) as raised:
        decode_json(Scalars, text)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert "SECRET" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_unknown_json_field_is_ignored_unless_told() -> None:
    assert decode_json(Placed, '{"orderId":"7","newer":[1]}') == Placed(order_id="7")
    with pytest.raises(Error, match="could not be decoded"):
        decode_json(Placed, '{"newer":1}', ignore_unknown_fields=False)


def test_oversized_input_is_refused_before_it_is_read() -> None:
    for read, data in ((decode, b"\x0a\x01a"), (decode_json, b'{"text":"a"}')):
        with pytest.raises(Error, match=f"has {len(data)} bytes: send at most 2") as raised:
            read(Scalars, data, max_size=2)
        assert raised.value.code is Code.INVALID_ARGUMENT
        assert read(Scalars, data, max_size=len(data)).text == "a"


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        size, head = len(data), b""
        while size > 127:
            head, size = head + bytes([size & 127 | 128]), size >> 7
        data = b"\x12" + head + bytes([size]) + data
    return data


@pytest.mark.parametrize("depth", [90, 100, 101, 110, 126, 127])
def test_json_is_read_as_deep_as_bytes(depth: int) -> None:
    text = '{"children":[' * (depth + 1) + "]}" * (depth + 1)
    refused = []
    for read, data in ((decode, nested(depth)), (decode_json, text), (decode_json, text.encode())):
        try:
            read(Tree, data)
        except Error:
            refused.append(read)
    assert len(refused) == (3 if depth > 100 else 0)


def test_deep_nesting_is_refused_not_a_crash() -> None:
    assert decode(Tree, nested(50)).children
    with pytest.raises(Error, match="could not be decoded"):
        decode(Tree, nested(20_000))
    with pytest.raises(Error, match="could not be decoded"):
        decode_json(Tree, '{"children":[' * 20_000 + "]}" * 20_000)
    with pytest.raises(Error, match="could not be decoded"):
        decode_json(Tree, '{"unknown":' + "[" * 100_000 + "]" * 100_000 + "}")


PROGRAM = """
import sys, pickle
{before}
sys.path.insert(0, {root!r})
import tests.unit.shapes_for_pickle as shapes
message = {make}
assert message.note is None and message.lines == [] and message.colour == 0, message
message.note = "x"
assert shapes.Order.from_binary(message.to_binary()) == message
assert pickle.loads(pickle.dumps(message)) == message
message.note = None
assert message.to_binary() == b"\\n\\x017", message.to_binary()
assert shapes.Order.__linkspan__.key == "order_id"
print("fine")
"""


@pytest.mark.parametrize("before", ["", "sys.modules['protobuf_ext'] = None"], ids=["native", "pure"])
@pytest.mark.parametrize(
    "make",
    [
        "shapes.Order(order_id='7')",
        "shapes.Order.from_binary(b'\\n\\x017')",
        "pickle.loads({pickled!r})",
        'shapes.Order.from_json(\'{{"orderId":"7"}}\')',
    ],
    ids=["construct", "from_binary", "unpickle", "from_json"],
)
def test_first_use_in_a_new_process_links(before: str, make: str) -> None:
    import tests.unit.shapes_for_pickle as shapes

    pickled = pickle.dumps(shapes.Order(order_id="7"))
    program = PROGRAM.format(before=before, make=make.format(pickled=pickled), root=".")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "fine\n", done.stderr
