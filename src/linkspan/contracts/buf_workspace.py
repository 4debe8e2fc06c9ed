"""Buf at work on `.proto` files: a folder of its own with the files that Linkspan knows, so that nothing is fetched from anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.known_files import known_texts
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Workspace", "import_root"]

_PACKAGE: Final = re.compile(r"^\s*package\s+([\w.]+)\s*;", re.MULTILINE)
_OWN: Final = "own"
_KNOWN: Final = "known"
_SECONDS: Final = 120
_MAX_FILES: Final = 5_000
_BUF_YAML: Final = f"version: v2\nmodules:\n  - path: {_OWN}\n  - path: {_KNOWN}\n"
_GENERATE: Final = """version: v2
plugins:
  - local: [{plugin}]
    out: generated
    opt:
      - "map_imports=linkspan/options.proto:."
"""


def import_root(source: Path) -> tuple[Path, list[str]]:
    """Return the folder that imports start from, and the files that are meant, relative to it.

    A folder is that root itself. The root of a single file lies above the folders of its package.

    Raises:
        SetupError: It is not there, or holds no `.proto` file.
    """
    if source.is_dir():
        files = sorted(file.relative_to(source).as_posix() for file in source.rglob("*.proto"))
        if not files:
            raise SetupError(f"The folder '{source}' has no .proto file: name a file, or the folder that imports start from.")
        return source, files
    if source.suffix != ".proto" or not source.is_file():
        raise SetupError(f"There is no .proto file '{source}': name one, or the folder that imports start from.")
    found = _PACKAGE.search(source.read_text(encoding="utf-8", errors="replace"))
    folders = found[1].split(".") if found else []
    path = source.resolve()
    if folders and list(path.parent.parts[-len(folders) :]) == folders:
        root = path.parents[len(folders)]
        return root, [path.relative_to(root).as_posix()]
    return path.parent, [path.name]


class Workspace:
    """A folder laid out for buf: the given files, and those of Linkspan, `google.api` and `buf.validate` for imports.

    Args:
        folder: An empty folder.
        root: Where the imports of the files start from.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._buf = _tool("buf")
        self._plugin = _tool("protoc-gen-py")
        self._known = known_texts()
        files = [file.relative_to(root).as_posix() for file in islice(root.rglob("*.proto"), _MAX_FILES + 1)]
        if len(files) > _MAX_FILES:
            raise SetupError(f"The folder '{root}' has more than {_MAX_FILES} .proto files: name the folder that imports start from.")
        for path in files:
            if path not in self._known:
                self._put(f"{_OWN}/{path}", (root / path).read_bytes())
        for path, text in self._known.items():
            self._put(f"{_KNOWN}/{path}", text.encode())
        self._put("buf.yaml", _BUF_YAML.encode())
        self._put("buf.gen.yaml", _GENERATE.format(plugin=str(self._plugin)).encode())

    def descriptors(self) -> FileDescriptorSet:
        """Return all files of the workspace with their comments. Raises `SetupError` with what buf found wrong."""
        return FileDescriptorSet.from_binary(self._run("build", "--as-file-descriptor-set", "-o", "-"))

    def generate(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the Python modules that Buf's plugin makes of some files, by their path."""
        words = [word for path in paths for word in ("--path", f"{_KNOWN if path in self._known else _OWN}/{path}")]
        self._run("generate", *words)
        made = self._folder / "generated"
        return {file.relative_to(made).as_posix(): file.read_text(encoding="utf-8") for file in sorted(made.rglob("*.py"))}

    def _put(self, path: str, content: bytes) -> None:
        file = self._folder / PurePosixPath(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def _run(self, *words: str) -> bytes:
        environment = {**os.environ, "BUF_CACHE_DIR": str(self._folder / "cache")}
        try:
            found = subprocess.run(
                [str(self._buf), *words], cwd=self._folder, env=environment, capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError(f"buf could not run ({type(error).__name__}): try `buf --version`.") from error
        if found.returncode != 0:
            said = found.stderr.decode(errors="replace").replace(f"{_OWN}/", "").strip()
            raise SetupError(f"buf refuses the files: correct them.\n{said}")
        return found.stdout


def _tool(name: str) -> Path:
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=str(beside)) or shutil.which(name)
    if found is None:
        raise SetupError(f"'{name}' is not installed: install linkspan[protofirst].")
    return Path(found)
