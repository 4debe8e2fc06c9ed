"""The message class: declared in Python, and itself the protobuf message that travels.

A class is linked at the first use of any message of its contract. Until then a hook of its metaclass answers the two
names that protobuf-py looks up; afterwards the class has another metaclass without hooks, so that nothing of ours runs
on the hot path. Private names of protobuf-py used here and in `contract.py`, `options.py`: `_codegen.file_desc`,
`_desc`, `_ext_marshaler`, `DescMessage._defaults`; each has a test, and the package is held to a minor.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast, dataclass_transform

import protobuf
from protobuf import DescField, DescUnknownField, Extension, Oneof
from protobuf.wkt import Duration, Timestamp

from linkspan.contract import Contract, find_contract
from linkspan.errors import Code, Error, SetupError
from linkspan.fields import (
    FieldSpec,
    Fixed32,
    Fixed64,
    Float32,
    Int32,
    SFixed32,
    SFixed64,
    SInt32,
    SInt64,
    UInt32,
    UInt64,
    field,
    mapping,
    oneof,
    repeated,
)
from linkspan.link import Declaration, check_identifier
from linkspan.nesting import may_be_deep, too_deep
from linkspan.options import ext_field, ext_message
from linkspan.rules import has_expression
from linkspan.validation import check_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protobuf import DescMessage

__all__ = [
    "MAX_SIZE",
    "Duration",
    "Enum",
    "Event",
    "Fixed32",
    "Fixed64",
    "Float32",
    "Int32",
    "Message",
    "MessageTraits",
    "Oneof",
    "SFixed32",
    "SFixed64",
    "SInt32",
    "SInt64",
    "Timestamp",
    "UInt32",
    "UInt64",
    "decode",
    "decode_json",
    "field",
    "has_key",
    "has_pii",
    "is_event",
    "is_message_class",
    "key_of",
    "mapping",
    "oneof",
    "package_of",
    "redacted",
    "repeated",
    "traits_of",
    "type_name",
]

M = TypeVar("M", bound=protobuf.Message[Any])

MAX_SIZE: Final = 4 * 1024 * 1024  # bytes; what gRPC takes by default
_LAZY: Final = ("_desc", "_ext_marshaler", "__linkspan__")


@dataclass(frozen=True, slots=True)
class MessageTraits:
    """What the other layers ask of a message class, computed once when it is linked.

    `key` is the attribute of the order key, or None; `pii` holds the attributes with personal data; `optional` maps the
    attributes that read None when absent to their fields.
    """

    full_name: str
    package: str
    key: str | None
    pii: frozenset[str]
    event: bool
    optional: Mapping[str, DescField]


if TYPE_CHECKING:
    _ProtobufType = type
else:
    _ProtobufType = type(protobuf.Message)  # follows protobuf-py's choice of native or pure Python


class _LinkedType(_ProtobufType):
    """The metaclass of linked messages: no hooks, only the refusal of subclasses."""

    def __new__(mcls, name: str, bases: tuple[type, ...], _body: dict[str, Any], **_options: Any) -> _LinkedType:
        raise _no_inheritance(name, bases)


class _MessageType(_ProtobufType):
    """The metaclass of messages until they are linked."""

    def __new__(mcls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, reserved: tuple[int | str, ...] = ()) -> _MessageType:  # noqa: PYI034 - no Self in a metaclass
        if body.get("__module__") == __name__:
            return super().__new__(mcls, name, bases, {"__slots__": (), **body})
        roots = [base for base in bases if isinstance(base, _MessageType)]
        if roots not in ([_roots()[0]], [_roots()[1]]):
            raise _no_inheritance(name, bases)
        specs = {attribute: value for attribute, value in body.items() if isinstance(value, FieldSpec)}
        rest = {attribute: value for attribute, value in body.items() if attribute not in specs}
        cls = super().__new__(mcls, name, bases, {**rest, "__slots__": tuple(specs)})
        _declare(cls, specs, _annotations(cls), reserved, event=roots[0] is _roots()[1])
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, reserved: tuple[int | str, ...] = ()) -> None:  # noqa: ARG002, N805 - `cls` is what it is
        super().__init__(name, bases, body)

    if not TYPE_CHECKING:  # else every misspelt attribute of a class would be Any, and constructors unchecked

        def __getattr__(cls, name: str) -> Any:  # noqa: N805 - a metaclass method: `cls` is what it is
            if name in _LAZY and cls.__module__ != __name__:
                return _link_for(cls, name)
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as above
            """Link first where instances are made without a look at the class: in the pure-Python runtime."""
            if cls.__module__ == __name__:
                raise TypeError(f"{cls.__name__} has no fields: declare a class of your own, `class Order({cls.__name__}): ...`.")
            _contract_of(cls.__module__, cls.__qualname__).link()
            return type.__call__(cls, *args, **kwargs)  # not super(): the metaclass has just changed


def _roots() -> tuple[type, type]:
    return Message, Event


def _no_inheritance(name: str, bases: tuple[type, ...]) -> SetupError:
    parents = ", ".join(base.__name__ for base in bases)
    return SetupError(f"Message '{name}' inherits from {parents}, but messages cannot inherit fields: use Message or Event, and a field.")


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - new in 3.14

        return annotationlib.get_annotations(cls, format=annotationlib.Format.STRING)
    return dict(inspect.get_annotations(cls))


def _contract_of(module: str, name: str) -> Contract:
    contract = find_contract(module)
    if contract is None:
        raise SetupError(f"Type '{name}' belongs to no contract: write `contract = Contract(\"…\")` at the top of module '{module}'.")
    return contract


def _dotted(cls: type, contract: Contract) -> str:
    """Return the name inside the package: nested in a message if its parent is one (declared later, as bodies end inside out)."""
    check_identifier(cls.__name__, f"Type '{cls.__qualname__}'")
    if cls.__name__ in {"int", "str", "bytes", "float", "bool", "list", "dict"}:
        raise SetupError(f"Type '{cls.__qualname__}' of contract '{contract.package}' would be renamed by protobuf: take another name.")
    return cls.__qualname__.rpartition("<locals>.")[2]


def _declare(cls: type, specs: dict[str, FieldSpec], annotations: dict[str, Any], reserved: tuple[int | str, ...], *, event: bool) -> None:
    contract = _contract_of(cls.__module__, cls.__qualname__)
    for attribute, annotation in annotations.items():
        if attribute not in specs and "ClassVar" not in str(annotation):
            raise SetupError(f"Field '{cls.__name__}.{attribute}' has no number: write `= field(1)`, with a number of its own.")
    for attribute in specs:
        if attribute not in annotations:
            raise SetupError(f"Field '{cls.__name__}.{attribute}' has no type: write it before the `=`, as in `{attribute}: str`.")

    def linked() -> None:
        _finish(cls)
        if any(has_expression(spec.rules) for spec in specs.values()):
            check_of(cls)

    contract.add(Declaration(cls, _dotted(cls, contract), specs, annotations, reserved, event, linked))


def _link_for(cls: type, name: str) -> Any:
    contract = _contract_of(cls.__module__, cls.__qualname__)
    if not contract.is_linking:
        contract.link()
        return type.__getattribute__(cls, name)
    if name == "_ext_marshaler" and "_desc" in cls.__dict__:  # protobuf-py asks right before it builds the codec
        _read_none_when_absent(cls.__dict__["_desc"])
    raise AttributeError(name)


def _read_none_when_absent(desc: DescMessage) -> None:
    absent = {f.local_name for f in desc.fields if f.proto.proto3_optional}
    defaults: list[tuple[str, Any]] = cast("Any", desc)._defaults  # noqa: SLF001 - named in the module docstring, with its test
    defaults[:] = [(name, None if name in absent else default) for name, default in defaults]


def _traits(cls: type[protobuf.Message[Any]], *, none_when_absent: bool) -> MessageTraits:
    desc = cls.desc()
    key: str | None = None
    pii: set[str] = set()
    for found in desc.fields:
        options = found.proto.options
        if options is not None and ext_field in options:
            key = found.local_name if options[ext_field].key else key
            if options[ext_field].pii:
                group = getattr(found.value, "oneof", None)
                pii.add(group.local_name if group is not None else found.local_name)
    rules = desc.proto.options
    return MessageTraits(
        full_name=desc.type_name,
        package=desc.file.proto.package,
        key=key,
        pii=frozenset(pii),
        event=rules is not None and ext_message in rules and rules[ext_message].event,
        optional={f.local_name: f for f in desc.fields if f.proto.proto3_optional} if none_when_absent else {},
    )


def _finish(cls: type[Message]) -> None:
    traits = _traits(cls, none_when_absent=True)
    type.__setattr__(cls, "__linkspan__", traits)
    if traits.optional:
        _read_none_when_absent(cls.desc())  # for the pure-Python runtime, which builds no codec and so did not ask
        if "__setattr__" not in cls.__dict__:
            type.__setattr__(cls, "__setattr__", _set_or_clear)
        type.__setattr__(cls, "__delitem__", _delete)
    cls.__class__ = _LinkedType  # type: ignore[assignment]  # the hook has done its work


def _set_or_clear(self: Message, name: str, value: Any, /) -> None:
    if value is None and name in self.__linkspan__.optional:
        _delete(self, self.__linkspan__.optional[name])
    else:
        super(Message, self).__setattr__(name, value)


def _delete(self: Message, key: DescField | DescUnknownField | Extension[Any, Any], /) -> None:
    super(Message, self).__delitem__(key)
    if isinstance(key, DescField) and key.local_name in self.__linkspan__.optional:
        getattr(type(self), key.local_name).__set__(self, None)  # the slot itself: not marked as present


if TYPE_CHECKING:
    _Declared = type  # mypy checks class keywords only where it sees no metaclass
else:
    _Declared = _MessageType


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Message(protobuf.Message[Any], metaclass=_Declared):
    """A request, a response or a part of one, declared by fields with numbers.

    The constructor takes the fields by name. Absent fields read as zero, optional and message fields as None.
    """

    if TYPE_CHECKING:
        __linkspan__: ClassVar[MessageTraits]

        def __init_subclass__(cls, *, reserved: tuple[int | str, ...] = ()) -> None: ...

    def __setstate__(self, state: object, /) -> None:
        traits_of(type(self))  # links: a pickle makes instances without calling the class
        super().__setstate__(state)

    def __repr__(self) -> str:
        return redacted(self)


class Event(Message):
    """A fact that happened and that others may react to, named in the past tense."""

    if TYPE_CHECKING:

        def __init_subclass__(cls, *, reserved: tuple[int | str, ...] = ()) -> None: ...


class Enum(protobuf.Enum):
    """A closed list of names that stays open on the wire: unknown numbers are kept as they are."""

    def __init_subclass__(cls, *, reserved: tuple[int | str, ...] = ()) -> None:
        super().__init_subclass__()
        contract = _contract_of(cls.__module__, cls.__qualname__)
        contract.add(Declaration(cls, _dotted(cls, contract), {}, {}, reserved, event=False, linked=_nothing))

    @classmethod
    def desc(cls) -> protobuf.DescEnum:
        """Return the descriptor of this enum."""
        if "_desc" not in cls.__dict__:
            _contract_of(cls.__module__, cls.__qualname__).link()
        return super().desc()

    @classmethod
    def _missing_(cls, value: object) -> Enum:
        cls.desc()
        return cast("Enum", super()._missing_(value))


def _nothing() -> None:
    """Do nothing: an enum is ready with its descriptor."""


def is_message_class(value: object) -> bool:
    """Tell whether a value is a message class, ours or a generated one."""
    return isinstance(value, type) and issubclass(value, protobuf.Message)


def traits_of(cls: type[protobuf.Message[Any]]) -> MessageTraits:
    """Return what is known of a message class: ours, or a generated one (computed at its first use, then kept on it)."""
    traits: MessageTraits | None = getattr(cls, "__linkspan__", None)
    if traits is None:
        traits = _traits(cls, none_when_absent=False)
        type.__setattr__(cls, "__linkspan__", traits)
    return traits


def key_of(message: protobuf.Message[Any]) -> str | None:
    """Return the order key of a message as text, or None if its class marks none; an empty field gives ''."""
    key = traits_of(type(message)).key
    if key is None:
        return None
    value = getattr(message, key)
    return value if type(value) is str else str(int(value))


def has_key(cls: type[protobuf.Message[Any]]) -> bool:
    """Tell whether a message class marks an order key."""
    return traits_of(cls).key is not None


def is_event(cls: type[protobuf.Message[Any]]) -> bool:
    """Tell whether a message class is an event."""
    return traits_of(cls).event


def type_name(cls: type[protobuf.Message[Any]]) -> str:
    """Return the full protobuf name, as in 'shop.orders.v1.Order'."""
    return traits_of(cls).full_name


def package_of(cls: type[protobuf.Message[Any]]) -> str:
    """Return the protobuf package, as in 'shop.orders.v1'."""
    return traits_of(cls).package


def has_pii(cls: Any) -> bool:
    """Tell whether messages of a class, or those that they may hold, have personal data."""
    seen: set[str] = set()
    queue: list[Any] = [cls.desc()]
    while queue:
        desc = queue.pop()
        if desc.type_name in seen:
            continue
        seen.add(desc.type_name)
        if traits_of(desc.type).pii:
            return True
        values = [field.value for field in desc.fields]
        inner = [getattr(value, name, None) for value in values for name in ("message", "element", "value")]
        queue += [each for each in inner if isinstance(each, protobuf.DescMessage)]
    return False


def redacted(message: protobuf.Message[Any]) -> str:
    """Return a message in constructor syntax with personal data as '***': the only form that logs may hold."""
    traits, parts = traits_of(type(message)), list[str]()
    for member in type(message).desc().members:
        name = member.local_name
        value = getattr(message, name)
        if value is not None and (isinstance(member, protobuf.DescOneof) or member in message):
            parts.append(f"{name}={'***' if name in traits.pii else _shown(value)}")
    return f"{type(message).__qualname__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    kind: Any = value.__class__
    if issubclass(kind, protobuf.Message):
        return redacted(value)
    if kind is list:
        return f"[{', '.join(map(_shown, value))}]"
    if kind is dict:
        return f"{{{', '.join(f'{key!r}: {_shown(item)}' for key, item in value.items())}}}"
    if kind is Oneof:
        return f"Oneof(field={value.field!r}, value={_shown(value.value)})"
    return repr(value)


def decode(cls: type[M], data: bytes | bytearray | memoryview, *, max_size: int = MAX_SIZE) -> M:
    """Read a message from protobuf bytes; unknown fields are kept.

    Raises:
        Error: INVALID_ARGUMENT: `data` is longer than `max_size` bytes or no such message. Its text holds nothing of the payload.
    """
    if len(data) > max_size:
        raise _oversized(cls, len(data), max_size)
    try:
        return cls.from_binary(data)
    except Exception as error:  # noqa: BLE001 - whatever the decoder meets, the bytes are to blame
        raise _undecodable(cls, error, "protobuf") from None


def decode_json(cls: type[M], data: bytes | str, *, max_size: int = MAX_SIZE, ignore_unknown_fields: bool = True) -> M:
    """Read a message from ProtoJSON; unknown fields are ignored unless told otherwise.

    Raises:
        Error: INVALID_ARGUMENT: `data` is longer than `max_size` or no such message. Its text holds nothing of the payload.
    """
    if len(data) > max_size:
        raise _oversized(cls, len(data), max_size)
    try:
        if too_deep(data):
            raise RecursionError  # noqa: TRY301 - answered below like any other text that cannot be read
        message = cls.from_json(data, ignore_unknown_fields=ignore_unknown_fields)
        if may_be_deep(data):  # JSON is read deeper than bytes are: what comes in must be able to travel on
            cls.from_binary(message.to_binary())
        return message
    except Exception as error:  # noqa: BLE001 - whatever the decoder meets, the text is to blame
        raise _undecodable(cls, error, "JSON") from None


def _oversized(cls: type[protobuf.Message[Any]], size: int, max_size: int) -> Error:
    return Error(Code.INVALID_ARGUMENT, f"Message '{type_name(cls)}' has {size} bytes: send at most {max_size}.")


def _undecodable(cls: type[protobuf.Message[Any]], error: Exception, form: str) -> Error:
    reason = type(error).__name__
    return Error(Code.INVALID_ARGUMENT, f"Message '{type_name(cls)}' could not be decoded ({reason}): send {form} of that type.")
