"""The generated message classes are those of proto/."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.transport import health_pb, reflection_pb

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("generated", [health_pb, reflection_pb], ids=["health", "reflection"])
def test_generated_classes_are_up_to_date(generated: object) -> None:
    buf = shutil.which("buf", path=str(ROOT / ".venv/bin"))
    if buf is None:
        pytest.skip("not run: buf is not installed")
    arguments = (buf, "build", "proto", "--exclude-source-info", "-o", "-#format=binpb")
    done = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, timeout=60)
    declared = {file.name: file for file in FileDescriptorSet.from_binary(done.stdout).file}
    file = generated.desc().proto  # type: ignore[attr-defined]  # a module
    assert file == declared[file.name], "run scripts/make_protos.sh"
