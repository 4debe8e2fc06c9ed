"""The built wheel, as people install it: in a clean environment of each Python, by uvx and by pipx. Takes minutes and a package index."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
"""What pyproject.toml says we run on."""

pytestmark = pytest.mark.timeout(280)


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a command to its end, without a trace of this checkout in its surroundings."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"} and "LINKSPAN" not in name}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "-q", ".", "--no-deps", "--no-build-isolation", "-w", folder, folder=ROOT)
    (made,) = folder.glob("*.whl")
    return made


def interpreter(version: str) -> str:
    """Find an interpreter that really runs; a name on the PATH may be a shim for what is not installed."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}*/bin/python"))
    for found in (sys.executable, shutil.which(f"python{version}"), *map(str, kept)):
        if found is None:
            continue
        told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if told.startswith(f"Python {version}."):
            return found
    pytest.skip(f"not run: python{version} is not on this machine")


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"not run: {name} is not on this machine")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_project_of_a_clean_environment_runs_and_answers(version: str, wheel: Path, tmp_path: Path) -> None:
    run(interpreter(version), "-m", "venv", tmp_path / "env", folder=tmp_path)
    run(tmp_path / "env" / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, "pytest", folder=tmp_path)
    linkspan = tmp_path / "env" / "bin" / "linkspan"
    assert run(linkspan, "--version", folder=tmp_path).startswith("linkspan 0.")
    said = run(linkspan, "new", "my-shop", folder=tmp_path)
    assert f"{linkspan} dev" in said

    project = tmp_path / "my-shop"
    assert "2 passed" in run(tmp_path / "env" / "bin" / "pytest", "-q", folder=project)
    with (project / "run.log").open("w") as log:
        environment = {**os.environ, "LINKSPAN_HTTP": "127.0.0.1:0", "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen([linkspan, "run", "my_shop:app"], cwd=project, env=environment, stdout=log, stderr=log)
    try:
        address = heard(project / "run.log", r"Ready: orders, mail at (http://\S+)")
        answer = run(linkspan, "call", "place_order", '{"orderId": "7"}', "--address", address, folder=project)
        heard(project / "run.log", "(Thank you: order 7 is placed)")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(40)

    assert json.loads(answer) == {"orderId": "7", "status": "placed"}
    assert code == 0


def heard(file: Path, pattern: str) -> str:
    end = time.monotonic() + 60
    while (found := re.search(pattern, file.read_text())) is None:
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.05)
    return found[1]


def test_uvx_starts_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    uvx = [tool("uv"), "tool", "run", "--constraints", str(ROOT / "constraints.txt"), "--from", str(wheel)]
    settings = {"UV_CACHE_DIR": str(tmp_path / "cache")}
    if "PIP_CERT" in os.environ:
        settings["SSL_CERT_FILE"] = os.environ["PIP_CERT"]

    assert run(*uvx, "linkspan", "--version", folder=tmp_path, **settings).startswith("linkspan 0.")
    assert "uv run linkspan dev" in run(*uvx, "linkspan", "new", "shop", folder=tmp_path, **settings)
    assert (tmp_path / "shop" / "shop.py").exists()


def test_pipx_starts_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    pipx = [tool("pipx"), "run", "--spec", str(wheel)]
    settings = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}

    assert run(*pipx, "linkspan", "--version", folder=tmp_path, **settings).startswith("linkspan 0.")
    run(*pipx, "linkspan", "new", "shop", folder=tmp_path, **settings)
    assert (tmp_path / "shop" / "shop.py").exists()
