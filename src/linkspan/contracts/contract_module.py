"""The Python module of a proto-first contract, as text: a ServiceContract for each service, with one typed line for each operation."""

from __future__ import annotations

import keyword
import posixpath
import re
import textwrap
from typing import TYPE_CHECKING, Final

from protobuf.plugin import get_comments, get_package_comments
from protobuf.wkt.google.protobuf.descriptor_pb import MethodOptions

from linkspan.contract import file_path
from linkspan.contracts.comments import WRITTEN
from linkspan.http_rule import ext_http
from linkspan.operation import ServiceContract
from linkspan.options import MethodRules, ext_file, ext_message, ext_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf import DescComments, DescEnum, DescFile, DescMessage, DescMethod, DescService

__all__ = ["ContractModule"]

_OURS: Final = frozenset({"Contract", "ServiceContract", "command", "contract", "event", "query", "stream"})
_WIDTH: Final = 120


class ContractModule:
    """Prints the contract of one package from its files; `path` is where it goes, beside the generated module of the first."""

    def __init__(self, files: Sequence[DescFile]) -> None:
        self._files = files
        self._package = files[0].proto.package
        self._services = [service for file in files for service in file.services]
        self._events = [message for file in files for message in file.messages if _is_event(message)]
        self._folder = posixpath.dirname(files[0].name)
        self._imports: dict[str, set[str]] = {}
        self._used: set[str] = {"Contract", "ServiceContract"}
        self.path = posixpath.join(self._folder, posixpath.basename(file_path(self._package)).replace(".proto", ".py"))

    @property
    def declares_something(self) -> bool:
        """Tell whether there is a service or an event."""
        return bool(self._services or self._events)

    def text(self) -> str:
        """Return the module."""
        alone = len(self._services) == 1  # the only service owns the events; otherwise they have a class of their own
        classes = [self._service(service, self._events if alone else ()) for service in self._services]
        if self._events and not alone:
            lines = [self._event(event, set()) for event in self._events]
            classes.append(_class(self._free("Events"), "The events of this package.", lines))
        for file in self._files:
            types: tuple[DescMessage | DescEnum, ...] = (*file.messages, *file.enums)
            for desc in types:
                self._name(desc)  # whoever imports the contract finds all of its types there
            if file.services:  # a service is found by the generated module of its file
                self._imports.setdefault(_module(file, self._folder), set())
        owner = next(filter(None, (_owner(file) for file in self._files)), "")
        contract = f'contract = Contract("{self._package}"' + (f", owner={_quoted(owner)})" if owner else ")")
        parts = [self._head(), "from __future__ import annotations", self._import_lines(), f"{self._all()}\n\n{contract}"]
        return "\n\n".join(parts) + "\n\n\n" + "\n\n\n".join(classes) + "\n"

    # --- what it declares

    def _service(self, service: DescService, events: Sequence[DescMessage]) -> str:
        names: set[str] = set()
        lines = [self._operation(method, names) for method in service.methods]
        lines += [self._event(event, names) for event in events]
        return _class(service.name, _text(get_comments(service)), lines)

    def _operation(self, method: DescMethod, names: set[str]) -> str:
        options = method.proto.options
        rules = options[ext_method] if options is not None and ext_method in options else MethodRules()
        verb = "query" if _is_query(method, rules) else "command"
        self._used.add(verb)
        arguments = [
            self._side(method.input, streamed=method.proto.client_streaming),
            self._side(method.output, streamed=method.proto.server_streaming),
            *_settings(rules, verb, streams=method.method_kind != "unary"),
        ]
        return _line(_attribute(method.name, names), f"{verb}({', '.join(arguments)})", _text(get_comments(method)))

    def _side(self, message: DescMessage, *, streamed: bool) -> str:
        name = self._name(message)
        if not streamed:
            return name
        self._used.add("stream")
        return f"stream({name})"

    def _event(self, event: DescMessage, names: set[str]) -> str:
        self._used.add("event")
        return _line(_attribute(event.name, names), f"event({self._name(event)})", _text(get_comments(event)))

    # --- names, and what is imported for them

    def _name(self, desc: DescMessage | DescEnum) -> str:
        """Return how the module names a type, and import it."""
        outer = desc
        while outer.parent is not None:
            outer = outer.parent
        module = _module(outer.file, self._folder)
        name = desc.type.__qualname__
        first, dot, rest = name.partition(".")
        alias = f"{first}Message" if first in _OURS or first == "Events" else first
        others = {each.rpartition(" ")[2] for other, used in self._imports.items() for each in used if other != module}
        if alias in others:  # another package has one of that name
            alias = f"{outer.file.proto.package.title().replace('.', '')}{first}"
        self._imports.setdefault(module, set()).add(first if alias == first else f"{first} as {alias}")
        return alias + dot + rest

    def _free(self, name: str) -> str:
        taken = {service.name for service in self._services}
        return name if name not in taken else f"Package{name}"

    def _import_lines(self) -> str:
        modules = {"linkspan": self._used, **self._imports}
        outside = [_import(module, modules[module]) for module in sorted(modules) if not module.startswith(".")]
        beside = [_import(module, modules[module]) for module in sorted(modules) if module.startswith(".")]
        return "\n\n".join("\n".join(each) for each in (outside, beside) if each)

    def _all(self) -> str:
        names = {service.name for service in self._services} | {"contract"}
        if self._events and len(self._services) != 1:
            names.add(self._free("Events"))
        for module, used in self._imports.items():
            names |= {each.rpartition(" ")[2] for each in used} or {module.rpartition(".")[2]}
        return "__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names)) + "]"

    def _head(self) -> str:
        said = next(filter(None, (_text(get_package_comments(file)) for file in self._files)), "")
        sources = ", ".join(file.name for file in self._files)
        made = f"{WRITTEN} from {sources}: change that, and import it again."
        return _docstring(f"{said or f'Contract of {self._package}.'}\n\n{made}", "")


def _is_event(message: DescMessage) -> bool:
    options = message.proto.options
    return options is not None and ext_message in options and options[ext_message].event


def _owner(file: DescFile) -> str:
    options = file.proto.options
    return options[ext_file].owner if options is not None and ext_file in options else ""


def _is_query(method: DescMethod, rules: MethodRules) -> bool:
    """Tell a query: by its idempotency level or, where nothing is said, by a GET route."""
    if method.idempotency == MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS:
        return True
    return not rules.command and _is_get(method)


def _is_get(method: DescMethod) -> bool:
    options = method.proto.options
    pattern = options[ext_http].pattern if options is not None and ext_http in options else None
    return pattern is not None and pattern.field == "get"


def _settings(rules: MethodRules, verb: str, *, streams: bool) -> list[str]:
    """Return what is declared beside the types, as arguments."""
    names = ("staleness", "budget") if verb == "query" else ("budget",) if streams else ("expires",)
    found = [f"{name}={value!r}" for name in names if (value := getattr(rules, name))]
    if verb == "command" and not streams and rules.answer not in {"", "either"}:
        found.insert(0, f"answer={_quoted(rules.answer)}")
    return found


def _attribute(name: str, names: set[str]) -> str:
    """Return the attribute of an operation: the name in lower case with underscores."""
    name = re.sub(r"([A-Z]{2,})s(?=[A-Z]|$)", lambda found: found[1].capitalize() + "s", name)  # WatchURLs
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()
    while keyword.iskeyword(words) or hasattr(ServiceContract, words) or words == "contract" or words in names:
        words += "_"
    names.add(words)
    return words


def _module(file: DescFile, folder: str) -> str:
    """Return the generated module of a file, relative to a folder; Google's own are installed with protobuf-py."""
    stem = re.sub(r"[^A-Za-z0-9_/]", "_", file.name.removesuffix(".proto")) + "_pb"
    if file.proto.package == "google.protobuf":
        return f"protobuf.wkt.{stem.replace('/', '.')}"
    steps = posixpath.relpath(stem, folder or ".").split("/")
    up = steps.count("..")
    return "." * (up + 1) + ".".join(steps[up:])


def _import(module: str, names: set[str]) -> str:
    if not names:
        folder, _, name = module.rpartition(".")
        return f"from {folder or '.'} import {name}"
    listed = sorted(names, key=lambda name: (not name[:1].isupper(), name))
    line = f"from {module} import {', '.join(listed)}"
    return line if len(line) <= _WIDTH else f"from {module} import (\n" + "".join(f"    {name},\n" for name in listed) + ")"


def _class(name: str, docs: str, lines: Sequence[str]) -> str:
    body = ([_docstring(docs, "    ") + "\n"] if docs else []) + list(lines)
    return f"class {name}(ServiceContract):\n" + "\n".join(body or ["    pass"])


def _line(name: str, value: str, docs: str) -> str:
    return f"    {name} = {value}" + (f"\n{_docstring(docs, '    ')}" if docs else "")


def _docstring(text: str, indent: str) -> str:
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    safe = safe + " " if safe.endswith('"') else safe
    body = safe if "\n" not in safe else f"{safe}\n"
    return textwrap.indent(f'"""{body}"""', indent, lambda line: bool(line.strip()))


def _quoted(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def _text(comments: DescComments) -> str:
    return textwrap.dedent("\n".join(line.removeprefix(" ").rstrip() for line in (comments.leading or "").splitlines())).strip()
