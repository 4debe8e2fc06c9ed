"""One contract: a proto package, declared by one module, importable without the code of its service."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakValueDictionary

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileOptions

from linkspan.errors import SetupError
from linkspan.link import Declaration, Linker
from linkspan.options import OPTIONS_FILE, FileRules, ext_file, link_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import protobuf
    from protobuf import DescFile
    from protobuf.wkt.google.protobuf.descriptor_pb import ServiceDescriptorProto

__all__ = ["PACKAGE", "VERSION", "Contract", "file_path", "find_contract"]

PACKAGE: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
VERSION: Final = re.compile(r"v[1-9][0-9]*((alpha|beta|test)[a-z0-9]*|p[0-9]+(alpha|beta)[0-9]*)?")


class Contract:
    """Names the proto package of the module that creates it: `contract = Contract("shop.orders.v1")`.

    The messages, enums and service contracts of that module belong to it. They are linked together at
    the first use of any of them, when a ServiceContract is created, or by `link()`.

    `dictionaries` are zstd dictionaries for batches of its events: the first is written with, all are read with.
    """

    # One package has one contract in a process; entries go when their module goes.
    _alive: ClassVar[WeakValueDictionary[str, Contract]] = WeakValueDictionary()
    _lock: ClassVar[threading.RLock] = threading.RLock()
    _linking: ClassVar[list[Contract]] = []

    def __init__(self, package: str, *, owner: str = "", dictionaries: Sequence[bytes] = ()) -> None:
        names = _caller()
        self.package: Final = package
        self.owner: Final = owner
        self.dictionaries: Final = tuple(dictionaries)
        self.module: Final[str] = names["__name__"]
        self._names: Final = names
        self._pending: list[Declaration] = []
        self._declared: dict[str, Declaration] = {}
        self._services: dict[str, Callable[[], tuple[ServiceDescriptorProto, list[DescFile]]]] = {}
        self._files: list[DescFile] = []
        self._failure: SetupError | None = None
        if not PACKAGE.fullmatch(package):
            raise SetupError(f"Contract '{package}' is no proto package: write lower-case words and dots, as in 'shop.orders.v1'.")
        self._claim()

    def _claim(self) -> None:
        for value in self._names.values():
            if isinstance(value, Contract) and value.module == self.module and value.package != self.package:
                raise SetupError(f"Module '{self.module}' has two contracts, '{value.package}' and '{self.package}': move one out.")
        other = Contract._alive.get(self.package)
        if other is not None and other.module != self.module and other.is_loaded:
            raise SetupError(
                f"Contract '{self.package}' is declared by '{other.module}' and by '{self.module}': "
                "keep one, and import it everywhere by the same module name."
            )
        Contract._alive[self.package] = self

    def __repr__(self) -> str:
        return f"Contract({self.package!r})"

    @classmethod
    def of(cls, package: str) -> Contract | None:
        """Return the contract that declares a package in this process, or None."""
        return cls._alive.get(package)

    @property
    def messages(self) -> tuple[type[protobuf.Message[Any]], ...]:
        """Return all message classes, events too, in order of declaration."""
        return tuple(d.cls for d in self._declared.values() if not d.is_enum)

    @property
    def events(self) -> tuple[type[protobuf.Message[Any]], ...]:
        """Return the event classes in order of declaration."""
        return tuple(d.cls for d in self._declared.values() if d.event)

    @property
    def enums(self) -> tuple[type[protobuf.Enum], ...]:
        """Return the enum classes in order of declaration."""
        return tuple(d.cls for d in self._declared.values() if d.is_enum)

    @property
    def files(self) -> tuple[DescFile, ...]:
        """Return the linked files: one, or more where messages were declared after the first link."""
        self.link()
        return tuple(self._files)

    @property
    def is_linking(self) -> bool:
        """Tell whether this very contract is being linked by this thread; another thread's link is waited for."""
        with Contract._lock:
            return self in Contract._linking

    @property
    def is_loaded(self) -> bool:
        """Tell whether the module that created this contract is still the one imported by that name."""
        module = sys.modules.get(self.module)
        return module is not None and vars(module) is self._names

    def add(self, declaration: Declaration) -> None:
        """Take a declaration in, to be linked with the next ones."""
        with Contract._lock:
            if declaration.name in self._declared or declaration.name in self._services:
                raise SetupError(f"Contract '{self.package}' has two types '{declaration.name}': rename one.")
            self._declared[declaration.name] = declaration
            self._pending.append(declaration)
            self._failure = None  # what was missing may be there now

    def add_service(self, name: str, proto: Callable[[], tuple[ServiceDescriptorProto, list[DescFile]]]) -> None:
        """Take in a service; `proto` builds its descriptor when the contract is exported."""
        if name in self._declared or name in self._services:
            raise SetupError(f"Contract '{self.package}' has two types '{name}': rename one.")
        self._services[name] = proto

    def link(self) -> None:
        """Turn all declarations so far into descriptors; a second call costs nothing.

        Raises:
            SetupError: A declaration is wrong. The same error comes at every further use.
        """
        with Contract._lock:
            if self._failure is not None:
                raise SetupError(str(self._failure)) from self._failure
            if self.is_linking:
                circle = " -> ".join(f"'{c.package}'" for c in (*Contract._linking, self))
                raise SetupError(f"Contracts use each other's types in a circle, {circle}: move the shared types to a third contract.")
            if not self._pending:
                return
            Contract._linking.append(self)
            try:
                self._link_pending()
            except SetupError as error:
                self._failure = error
                raise
            finally:
                Contract._linking.remove(self)

    def _link_pending(self) -> None:
        linker = Linker(file_path(self.package, len(self._files) + 1), self.package, self._names, self._pending, self._link_other)
        classes = {declaration.name: declaration.cls for declaration in self._pending}
        try:
            proto = linker.file()
            linked = link_file(proto, list(linker.dependencies.values()), classes)
            for declaration in self._pending:
                self._check_names(declaration)
        except Exception as error:
            for declaration in self._pending:
                for name in {"_desc", "_ext_marshaler"} & set(vars(declaration.cls)):
                    type.__delattr__(declaration.cls, name)
            if isinstance(error, SetupError):
                raise
            raise SetupError(f"Contract '{self.package}' cannot be linked ({error}): correct the declaration.") from error
        self._files.append(linked)
        done, self._pending = self._pending, []
        for declaration in done:
            declaration.linked()

    def _link_other(self, cls: type) -> None:
        other = find_contract(cls.__module__)
        if other is not None and other is not self:
            other.link()

    @staticmethod
    def _check_names(declaration: Declaration) -> None:
        """Refuse what protobuf-py would rename: its own rules have the last word."""
        if declaration.is_enum:
            known = {value.local_name for value in declaration.cls.desc().values}
            wanted = set(declaration.cls.__members__)
        else:
            known = {member.local_name for member in declaration.cls.desc().members}
            wanted = set(declaration.fields)
        for name in sorted(wanted - known):
            raise SetupError(f"Name '{declaration.name}.{name}' would be renamed by protobuf: take another name.")

    def descriptor(self) -> FileDescriptorProto:
        """Return the whole contract as one file: all parts merged, with services and options, as it is exported."""
        merged = FileDescriptorProto(name=file_path(self.package), package=self.package, syntax="proto3")
        if self.owner:
            merged.options = FileOptions()
            merged.options[ext_file] = FileRules(owner=self.owner)
        for file in self.files:
            merged.message_type.extend(file.proto.message_type)
            merged.enum_type.extend(file.proto.enum_type)
        merged.service.extend(build()[0] for build in self._services.values())
        merged.dependency.extend(sorted({file.name for file in self.imports()}))
        return merged

    def imports(self) -> list[DescFile]:
        """Return the linked files that the descriptor depends on."""
        found = [OPTIONS_FILE] if self.owner else []
        found.extend(dependency for file in self.files for dependency in file.dependencies)
        found.extend(file for build in self._services.values() for file in build()[1])
        own = {file.name for file in self._files}
        return list({file.name: file for file in found if file.name not in own}.values())

    def docs(self) -> dict[str, str]:
        """Read the docs of the module's source: docstrings, and string literals under a field or an operation.

        Keys are `Order`, `Order.note`, `Orders.get_order`, and '' for the module itself. Reads the file on each call: meant for export.
        """
        try:
            source = inspect.getsource(sys.modules[self.module])
        except (OSError, TypeError, KeyError):
            return {}  # no source: a REPL or a compiled module
        tree = ast.parse(source)
        docs = {"": text} if (text := ast.get_docstring(tree)) else {}
        _collect(tree.body, "", docs)
        return docs


def _collect(body: list[ast.stmt], path: str, docs: dict[str, str]) -> None:
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement, following:
            case ast.ClassDef(name=name), _:
                if text := ast.get_docstring(statement):
                    docs[path + name] = text
                _collect(statement.body, f"{path}{name}.", docs)
            case (
                (ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)])),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[path + name] = inspect.cleandoc(text)
            case _:
                pass


def _caller() -> dict[str, Any]:
    """Return the names of the module that creates a contract."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    if frame is None:
        raise SetupError("A contract is created outside of any module: create it at the top of the module of its messages.")
    return frame.f_globals


def file_path(package: str, part: int = 1) -> str:
    """Return where the `.proto` file of a package lies, as in 'shop/orders/v1/orders.proto'; parts declared later carry their number."""
    words = package.split(".")
    name = words[-2] if len(words) > 1 and VERSION.fullmatch(words[-1]) else words[-1]
    return "/".join((*words, name + (f".{part}" if part > 1 else "") + ".proto"))


def find_contract(module: str) -> Contract | None:
    """Return the contract that a module created, or None."""
    names = vars(sys.modules[module]) if module in sys.modules else {}
    for value in (names.get("contract"), *names.values()):
        if isinstance(value, Contract) and value.module == module:
            return value
    return None
