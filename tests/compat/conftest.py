"""Build the whole corpus with buf, twice at most: all older versions and all newer ones, each case in a package of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from tests.compat.case import pairs, texts
from tests.compat.corpus import CASES

PACKAGE = ["PACKAGE_NO_DELETE", "PACKAGE_SERVICE_NO_DELETE", "PACKAGE_MESSAGE_NO_DELETE", "PACKAGE_ENUM_NO_DELETE"]
CONFIG = {"version": "v2", "breaking": {"use": ["WIRE_JSON", "RPC_NO_DELETE", *PACKAGE]}}
"""The rules of buf that ours are held to."""


@pytest.fixture(scope="session")
def buf() -> str:
    found = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if found is None:
        pytest.skip("not run: needs buf (pip install buf-bin)")
    return found


@pytest.fixture(scope="session")
def built(buf: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Return the descriptor sets of each pair, older and newer, as files."""
    folder = tmp_path_factory.mktemp("corpus")
    whole = pairs(CASES)
    versions = {"before": [pair.before for pair in whole], "after": [pair.after for pair in whole]}
    for name, texts_of in versions.items():
        for number, version in enumerate(texts_of):
            for path, text in texts(version, f"case{number}").items():
                file = folder / name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        subprocess.run([buf, "build", name, "-o", f"{name}.binpb"], cwd=folder, check=True, timeout=100)
    return {pair.id: (_cut(folder, "before", number), _cut(folder, "after", number)) for number, pair in enumerate(whole)}


def _cut(folder: Path, name: str, number: int) -> Path:
    """Write the files of one case as a set of their own."""
    whole = FileDescriptorSet.from_binary((folder / f"{name}.binpb").read_bytes())
    own = FileDescriptorSet(file=[file for file in whole.file if file.name.startswith(f"case{number}/")])
    path = folder / f"{name}{number}.binpb"
    path.write_bytes(own.to_binary())
    return path


def by_buf(buf: str, before: Path, after: Path) -> set[str]:
    """Return the ids of the rules that buf finds broken."""
    command = [buf, "breaking", str(after), "--against", str(before), "--config", json.dumps(CONFIG), "--error-format", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode in {0, 100}, ran.stderr
    return {json.loads(line)["type"] for line in ran.stdout.splitlines()}


def rules_of_buf(buf: str) -> set[str]:
    """Return the ids of the rules that buf checks with our configuration, as it lists them."""
    command = [buf, "config", "ls-breaking-rules", "--configured-only", "--config", json.dumps(CONFIG), "--format", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {json.loads(line)["id"] for line in ran.stdout.splitlines()}
