"""What belongs to a contract, and one descriptor set of contracts with everything that they import."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileDescriptorSet

from linkspan.contract import Contract, file_path, find_contract
from linkspan.operation import ServiceContract
from linkspan.service_descriptor import generated_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import protobuf
    from protobuf import DescEnum, DescFile, DescMessage

__all__ = [
    "all_enums",
    "all_messages",
    "contract_of",
    "descriptor_set",
    "events_of",
    "files_of",
    "own_files",
    "services_of",
    "with_imports",
]


def services_of(contract: Contract) -> tuple[type[ServiceContract], ...]:
    """Return the service contracts that the contract's module declares, in their order."""
    names = vars(sys.modules[contract.module]) if contract.module in sys.modules else {}
    found = [
        each for each in names.values() if isinstance(each, type) and issubclass(each, ServiceContract) and each is not ServiceContract
    ]
    return tuple(dict.fromkeys(each for each in found if each.contract is contract))


def events_of(contract: Contract) -> tuple[type[protobuf.Message[Any]], ...]:
    """Return the contract's event classes: those that derive from Event, and the generated ones that a service contract names."""
    named = (each.message for service in services_of(contract) for each in service.events)
    return tuple(dict.fromkeys((*contract.events, *named)))


def files_of(contract: Contract) -> tuple[DescFile, ...]:
    """Return the linked files of a contract's package: made from its classes or, proto-first, generated."""
    if contract.files:
        return contract.files
    used = [each for service in services_of(contract) for op in service.operations for each in (op.request, op.response)]
    files = [*(cls.desc().file for cls in (*used, *events_of(contract))), *generated_files(contract.module)]
    return tuple(dict.fromkeys(file for file in files if file.proto.package == contract.package))


def all_messages(messages: Iterable[DescMessage]) -> Iterator[DescMessage]:
    """Yield messages, each before those nested in it; entries of maps are left out."""
    for message in messages:
        yield message
        yield from all_messages(message.nested_messages)


def all_enums(file: DescFile) -> Iterator[DescEnum]:
    """Yield the enums of a file, nested ones last."""
    yield from file.enums
    for message in all_messages(file.messages):
        yield from message.nested_enums


def own_files(contract: Contract) -> list[FileDescriptorProto]:
    """Return the contract as files for others: one, merged and with its services; or, proto-first, those that it was generated from."""
    generated = _generated(contract)
    if generated:
        return [file.proto for file in generated]
    merged = contract.descriptor()
    owners = {file.name: contract_of(file) for file in contract.imports()}
    merged.dependency[:] = sorted(
        {file_path(owner.package) if owner else name for name, owner in owners.items()}
    )  # parts are merged there too
    return [merged]


def contract_of(file: DescFile) -> Contract | None:
    """Return the contract whose classes were linked to a file, or None for a generated one."""
    descs: tuple[DescMessage | DescEnum, ...] = (*file.messages, *file.enums)
    contract = find_contract(descs[0].type.__module__) if descs else None
    return contract if contract is not None and file in contract.files else None


def with_imports(contracts: Sequence[Contract]) -> list[Contract]:
    """Return contracts and those whose types they use, imported ones first."""
    found: dict[Contract, None] = {}
    for contract in contracts:
        others = (contract_of(file) for file in _imports(contract))
        found |= dict.fromkeys(with_imports([other for other in others if other is not None]))
        found[contract] = None
    return list(found)


def descriptor_set(contracts: Sequence[Contract]) -> FileDescriptorSet:
    """Return the contracts and all that they import, imported files first, as `buf build` would: self-contained."""
    files: dict[str, FileDescriptorProto] = {}
    for contract in with_imports(contracts):
        for file in _imports(contract):
            _add(file, files)
        files |= {file.name: file for file in own_files(contract) if file.name not in files}
    return FileDescriptorSet(file=list(files.values()))


def _imports(contract: Contract) -> Sequence[DescFile]:
    generated = _generated(contract)
    return [dependency for file in generated for dependency in file.dependencies] if generated else contract.imports()


def _generated(contract: Contract) -> tuple[DescFile, ...]:
    return () if contract.files else files_of(contract)


def _add(file: DescFile, files: dict[str, FileDescriptorProto]) -> None:
    if contract_of(file) is None and file.name not in files:  # those of contracts are added merged
        for dependency in file.dependencies:
            _add(dependency, files)
        files[file.name] = file.proto
