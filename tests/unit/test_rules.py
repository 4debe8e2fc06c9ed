"""Field rules: written as protovalidate's options, wrong ones refused where they are declared, broken ones told without the value."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import protovalidate
import pytest
from hypothesis import given, settings, strategies as st

from linkspan import Code, Error, Oneof, SetupError
from linkspan.validation import ALL_BELOW, check_of
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.validation import Check

CANARY = "canary-4711"
ORDER = """
from datetime import datetime, timedelta, UTC

class Status(Enum):
    UNSPECIFIED = 0
    PAID = 1
    OPEN = 2

class Line(Message):
    sku: str = field(1, pattern="^[A-Z]{3}$")
    count: Int32 = field(2, gt=0, lte=100)

class Order(Message):
    order_id: str = field(1, uuid=True)
    mail: str = field(2, email=True, ignore_if_zero=True)
    note: str | None = field(3, default=None, min_len=2)
    lines: list[Line] = repeated(4, min_items=1, max_items=3)
    tags: list[str] = repeated(5, unique=True, items={"in_": ["a", "b"]})
    prices: dict[str, int] = mapping(6, keys={"min_len": 3}, values={"gte": 1})
    status: Status = field(7, defined_only=True, not_in=[0])
    wait: Duration | None = field(8, default=None, gte=timedelta(seconds=1), lt=timedelta(hours=1))
    at: Timestamp | None = field(9, default=None, required=True, gt=datetime(2020, 1, 1, tzinfo=UTC))
    how: Oneof[Literal["card"], str] | Oneof[Literal["iban"], str] | None = oneof(card=10, iban=11, required=True)
    share: float = field(12, gte=0, lte=1, finite=True)
    digest: bytes = field(13, len=2)
    word: str = field(14, cel="this.startsWith('c') ? 'not %s'.format([this]) : ''")
    parent: Order | None = field(15, default=None)
"""
order: Any = declare(ORDER, package="rules.orders.v1", postponed=True)


def right(**more: Any) -> Any:
    fields: dict[str, Any] = {
        "order_id": "0192d3a0-7b5c-7abc-8def-000000000001",
        "lines": [order.Line(sku="ABC", count=1)],
        "status": order.Status.PAID,
        "at": order.Timestamp(seconds=1_700_000_000),
        "how": Oneof("card", "4"),
        "digest": b"xy",
    }
    return order.Order(**{**fields, **more})


def check(cls: type[Any]) -> Check:
    found = check_of(cls)
    assert found is not None
    return found


def broken(message: Any) -> Error:
    with pytest.raises(Error) as caught:
        check(type(message))(message)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


def test_message_that_keeps_its_rules_passes() -> None:
    check(order.Order)(right())
    check(order.Order)(right(parent=right(), note="ab", tags=["a", "b"], prices={"abc": 1}, wait=order.Duration(seconds=5), mail="a@b.c"))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "uuid": ({"order_id": CANARY}, "order_id (string.uuid)"),
    "email": ({"mail": CANARY}, "mail (string.email)"),
    "text that is there": ({"note": "x"}, "note (string.min_len)"),
    "no items": ({"lines": []}, "lines (repeated.min_items)"),
    "too many items": ({"lines": [order.Line(sku="ABC", count=1)] * 4}, "lines (repeated.max_items)"),
    "inside of an item": ({"lines": [order.Line(sku=CANARY, count=1)]}, "lines[0].sku (string.pattern)"),
    "range": ({"lines": [order.Line(sku="ABC", count=101)]}, "lines[0].count (int32.gt_lte)"),
    "item": ({"tags": [CANARY]}, "tags[0] (string.in)"),
    "twice": ({"tags": ["a", "a"]}, "tags (repeated.unique)"),
    "map key": ({"prices": {"ca": 5}}, "prices (string.min_len)"),
    "map value": ({"prices": {CANARY: 0}}, "prices (int64.gte)"),
    "unknown enum value": ({"status": order.Status(9)}, "status (enum.defined_only)"),
    "forbidden enum value": ({"status": order.Status(0)}, "status (enum.not_in)"),
    "duration": ({"wait": order.Duration(seconds=7200)}, "wait (duration.gte_lt)"),
    "absent": ({"at": None}, "at (required)"),
    "moment": ({"at": order.Timestamp(seconds=5)}, "at (timestamp.gt)"),
    "oneof": ({"how": None}, "how (required)"),
    "not a number": ({"share": float("nan")}, "share (double."),
    "bytes": ({"digest": b"xyz"}, "digest (bytes.len)"),
    "deeper": ({"parent": right(order_id=CANARY)}, "parent.order_id (string.uuid)"),
}


@pytest.mark.parametrize(("fields", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_rule_is_told_by_path_and_id_and_never_by_value(fields: dict[str, Any], told: str) -> None:
    error = broken(right(**fields))
    assert told in error.message
    (details,) = error.details
    assert type(details).desc().type_name == "buf.validate.Violations"
    assert CANARY not in error.message + str(details)
    assert CANARY.encode() not in details.to_binary()


def test_text_made_by_an_expression_does_not_travel() -> None:
    error = broken(right(word=CANARY))
    assert CANARY.encode() not in error.details[0].to_binary()
    assert [violation.message for violation in error.details[0].violations] == [""]  # type: ignore[attr-defined]  # of protovalidate


def test_all_broken_rules_are_told_and_the_text_names_five() -> None:
    error = broken(order.Order())
    violations = error.details[0].violations  # type: ignore[attr-defined]  # of protovalidate
    assert {violation.rule_id for violation in violations} >= {"string.uuid_empty", "repeated.min_items", "required", "bytes.len"}
    assert error.message.startswith("'rules.orders.v1.Order' breaks the rules of its contract: ")
    assert error.message.count("(") == 5
    assert f" and {len(violations) - 5} more. Correct these fields." in error.message


def test_large_message_is_told_its_first_broken_rule_only() -> None:
    error = broken(right(tags=["x" * 10] * ALL_BELOW))
    assert len(error.details[0].violations) == 1  # type: ignore[attr-defined]  # of protovalidate


def same(least: int) -> Any:
    return declare(f"class Same(Message):\n    a: int = field(1, gt={least})", package="rules.same.v1", module="same")


def test_classes_of_one_name_keep_their_own_rules() -> None:
    first = same(0)
    first.contract.link()
    second = same(10)
    check(first.Same)(first.Same(a=5))
    assert "a (int64.gt)" in broken(second.Same(a=5)).message
    check(first.Same)(first.Same(a=5))


def test_class_without_rules_has_no_check_even_beside_ruled_ones() -> None:
    module = declare(
        """
class Free(Message):
    a: str = field(1)
class Ruled(Message):
    a: str = field(1, min_len=1)
class Outer(Message):
    inner: list[Ruled] = repeated(1)
class Map(Message):
    inner: dict[str, Ruled] = mapping(1)
class Loop(Message):
    loop: Loop | None = field(1, default=None)
""",
        postponed=True,
    )
    assert check_of(module.Free) is None
    assert check_of(module.Loop) is None
    assert "inner[0].a" in broken(module.Outer(inner=[module.Ruled()])).message
    assert "inner.a" in broken(module.Map(inner={CANARY: module.Ruled()})).message


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_judged_as_python_judges_them(value: int) -> None:
    for cls, keeps in NUMBERS:
        if keeps(value):
            check(cls)(cls(a=value))
        else:
            broken(cls(a=value))


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.text(max_size=8))
def test_texts_are_judged_as_python_judges_them(value: str) -> None:
    for cls, keeps in TEXTS:
        if keeps(value):
            check(cls)(cls(a=value))
        else:
            broken(cls(a=value))


def each(kind: str, **rules: Callable[[Any], bool]) -> list[tuple[type[Any], Callable[[Any], bool]]]:
    module: Any = declare("".join(f"class M{n}(Message):\n    a: {kind} = field(1, {rule})\n" for n, rule in enumerate(rules)))
    return [(getattr(module, f"M{n}"), keeps) for n, keeps in enumerate(rules.values())]


NUMBERS = each(
    "int",
    **{
        "gt=0": lambda v: v > 0,
        "gte=-5, lt=5": lambda v: -5 <= v < 5,
        "lte=7": lambda v: v <= 7,
        "in_=[0, 1, 2]": lambda v: v in (0, 1, 2),
        "not_in=[0]": lambda v: v != 0,
        "const=0": lambda v: v == 0,
        "required=True": lambda v: v != 0,
        "gt=3, ignore_if_zero=True": lambda v: v > 3 or v == 0,
    },
)
TEXTS = each(
    "str",
    **{
        "min_len=2, max_len=4": lambda v: 2 <= len(v) <= 4,
        "max_bytes=5": lambda v: len(v.encode()) <= 5,
        "prefix='a'": lambda v: v.startswith("a"),
        "contains='b'": lambda v: "b" in v,
        "pattern='^[a-m]*$'": lambda v: all("a" <= c <= "m" for c in v),
    },
)

WRONG: dict[str, tuple[str, str]] = {
    "rule of another type": ("a: int = field(1, min_len=2)", "'M.a' cannot have the rule 'min_len': its type takes .*gt, gte"),
    "rule of a bool": ("a: bool = field(1, gt=0)", "'M.a' cannot have the rule 'gt'"),
    "unknown rule": ("a: int = field(1, above=2)", "'M.a' cannot have the rule 'above'"),
    "rule of a message": ("a: Other | None = field(1, default=None, gt=1)", "'M.a' cannot have the rule 'gt': its type takes cel"),
    "item rule on a list": ("a: list[str] = repeated(1, min_len=2)", "'M.a' cannot have the rule 'min_len': its type takes .*items"),
    "wrong item rule": ("a: list[str] = repeated(1, items={'gt': 2})", "'M.a, items' cannot have the rule 'gt'"),
    "wrong key rule": ("a: dict[str, int] = mapping(1, keys={'gt': 2})", "'M.a, keys' cannot have the rule 'gt'"),
    "empty range": ("a: int = field(1, gt=5, lt=3)", "'M.a' has gt=5 and lt=3: no value fulfils both"),
    "empty open range": ("a: int = field(1, gt=5, lte=5)", "'M.a' has gt=5 and lte=5"),
    "empty size": ("a: str = field(1, min_len=5, max_len=3)", "'M.a' has min_len=5 and max_len=3"),
    "mixed range": ("a: int = field(1, gt=5, lt='x')", "'M.a' has gt and lt of different types"),
    "two lower bounds": ("a: int = field(1, gt=5, gte=3)", "'M.a' has the rules 'gt' and 'gte': keep one"),
    "two forms": ("a: str = field(1, email=True, uuid=True)", "'M.a' has the rules 'email' and 'uuid': keep one"),
    "flag that is off": ("a: str = field(1, email=False)", "'M.a' has email=False: write email=True, or leave it out"),
    "empty choice": ("a: str = field(1, in_=[])", "'M.a' has the rule 'in_' without any value"),
    "choice of letters": ("a: str = field(1, in_='abc')", "'M.a' has the rule 'in_' without any value"),
    "value of another type": ("a: int = field(1, gt='x')", "'M.a' has a rule with a value of another type"),
    "value that does not fit": ("a: Int32 = field(1, gt=2**40)", "'M.a' has a rule with a value of another type"),
    "pattern that is none": ("a: str = field(1, pattern='(')", "M' has a rule that cannot be compiled"),
    "expression that is none": ("a: str = field(1, cel='this +')", "M' has a rule that cannot be compiled"),
}


@pytest.mark.parametrize(("line", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_rule_that_cannot_work_is_refused_when_the_contract_is_linked(line: str, sentence: str) -> None:
    module = declare(f"class Other(Message):\n    x: int = field(1)\nclass M(Message):\n    {line}\n")
    with pytest.raises(SetupError, match=sentence):
        module.contract.link()


def test_value_of_another_python_type_is_told_as_that() -> None:
    assert "holds a value of another type" in broken(right(note=7)).message


def test_rules_stand_in_the_exported_descriptor() -> None:
    order.contract.link()
    proto = order.contract.descriptor()
    assert "buf/validate/validate.proto" in proto.dependency
    known: Any = sys.modules[protovalidate.ViolationsPb.__module__]
    line = next(message for message in proto.message_type if message.name == "Line")
    rules = {field.name: field.options[known.ext_field] for field in line.field if field.options is not None}
    assert rules["sku"].type == Oneof("string", known.StringRules(pattern="^[A-Z]{3}$"))
    assert rules["count"].type == Oneof("int32", known.Int32Rules(greater_than=Oneof("gt", 0), less_than=Oneof("lte", 100)))


def test_rules_without_protovalidate_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare("class M(Message):\n    a: int = field(1, gt=0)")
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    with pytest.raises(SetupError, match=r"install linkspan\[protovalidate\]"):
        module.contract.link()
