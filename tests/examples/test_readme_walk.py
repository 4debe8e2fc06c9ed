"""Somebody who has read only the README: its commands, as they stand there, from an empty folder with nothing but Python."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("src", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
TEN_MINUTES = 600.0


def shell_blocks() -> list[list[str]]:
    """Return the commands of the README's `sh` blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [block.strip().splitlines() for block in blocks]


def environment(folder: Path) -> dict[str, str]:
    """Return what a fresh machine has: a home, Python, and the way to the package registry."""
    python = Path(sys.base_prefix, "bin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")}
    return {
        **kept,
        "PATH": f"{python}:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "LINKSPAN_HTTP": f"127.0.0.1:{port}",
    }


def wait_for(file: Path, text: str, process: subprocess.Popen[bytes], patience: float = 60.0) -> None:
    until = time.monotonic() + patience
    while text not in file.read_text(encoding="utf-8"):
        assert process.poll() is None, file.read_text(encoding="utf-8")
        assert time.monotonic() < until, file.read_text(encoding="utf-8")
        time.sleep(0.05)


@pytest.mark.timeout(TEN_MINUTES)
def test_first_service_runs_and_is_tested_within_ten_minutes(tmp_path: Path) -> None:
    first, second = shell_blocks()
    assert first[-1] == "linkspan dev"
    (tmp_path / "home").mkdir()
    for part in PARTS:
        source, target = ROOT / part, tmp_path / "linkspan" / part
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__")) if source.is_dir() else shutil.copy(source, target)
    env, said = environment(tmp_path), tmp_path / "said.txt"
    began = time.monotonic()

    with said.open("wb") as out:
        script = "set -e\n" + "\n".join([*first[:-1], f"exec {first[-1]}"])
        dev = subprocess.Popen(
            ["/bin/bash", "-c", script], cwd=tmp_path, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(said, "2 passed", dev, patience=TEN_MINUTES)
        wait_for(said, env["LINKSPAN_HTTP"], dev)
        done = subprocess.run(
            ["/bin/bash", "-ec", "\n".join(second)], cwd=tmp_path / "shop", env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count('"status"') == 2, done.stdout
        wait_for(said, "Thank you: order 7 is placed.", dev)
        took = time.monotonic() - began
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(30) == 0, said.read_text(encoding="utf-8")
    finally:
        if dev.poll() is None:
            os.killpg(dev.pid, signal.SIGKILL)
            dev.wait()

    print(f"\nthe README's walk took {took:.0f} s")
    assert took < TEN_MINUTES
