"""From `.proto` files to contracts in Python: generated messages, and beside them the operations as typed lines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from linkspan.contract import PACKAGE
from linkspan.contracts.buf_workspace import Workspace, import_root
from linkspan.contracts.contract_module import ContractModule
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf import DescFile

__all__ = ["imported"]

_NOT_GENERATED: Final = ("google.protobuf", "linkspan")
"""Packages whose modules are installed already."""


def imported(source: Path) -> tuple[dict[str, str], list[str]]:
    """Return Python modules by their path in the folder to write to, and which of them are contracts.

    The rest are what Buf's protoc-gen-py generates: messages and enums.

    Raises:
        SetupError: A tool is not installed, buf refuses the files, or they hold no service and no event.
    """
    root, wanted = import_root(source)
    with tempfile.TemporaryDirectory(prefix="linkspan-import-") as folder:
        workspace = Workspace(Path(folder), root)
        registry = workspace.descriptors().to_registry()
        found = [registry.file(path) for path in wanted]
        files = [file for file in found if file is not None and file.proto.package not in _NOT_GENERATED]
        _check_packages(files)
        modules = workspace.generate(_with_imports(files))
    contracts: dict[str, str] = {}
    for package in dict.fromkeys(file.proto.package for file in files):
        module = ContractModule([file for file in files if file.proto.package == package])
        if module.declares_something:
            contracts[module.path] = module.text()
    if not contracts:
        raise SetupError(f"'{source}' has no service and no event: declare one, or mark messages with option (linkspan.message).event.")
    return {**modules, **contracts}, list(contracts)


def _check_packages(files: Sequence[DescFile]) -> None:
    for file in files:
        package = file.proto.package
        if not package:
            raise SetupError(f"File '{file.name}' has no package: write one, as in `package shop.orders.v1;`.")
        if not PACKAGE.fullmatch(package):
            raise SetupError(
                f"Package '{package}' of '{file.name}' cannot be a contract: write lower-case words and dots, as in 'shop.orders.v1'."
            )


def _with_imports(files: Sequence[DescFile]) -> list[str]:
    """Return the files to generate: those that are meant and those that they import."""
    found: dict[str, None] = {}

    def add(file: DescFile) -> None:
        if file.name not in found and file.proto.package not in _NOT_GENERATED:
            found[file.name] = None
            for dependency in file.dependencies:
                add(dependency)

    for file in files:
        add(file)
    return list(found)
