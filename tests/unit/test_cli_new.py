"""`linkspan new`: names, refusals, and a project that is formatted, typed, and runs its own test."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from linkspan import SetupError
from linkspan.cli.commands import cli
from linkspan.cli.new import make, next_commands

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("made")
    make("my-shop", parent)
    return parent / "my-shop"


def run(project: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_files_are_made_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["new", "my-shop"])

    assert done.exit_code == 0
    assert done.output.startswith("Made my-shop: my_shop.py, test_my_shop.py, README.md, pyproject.toml, .gitignore.\n")
    assert sorted(file.name for file in (tmp_path / "my-shop").iterdir()) == sorted(
        ["my_shop.py", "test_my_shop.py", "README.md", "pyproject.toml", ".gitignore"]
    )
    assert [line.strip() for line in done.output.splitlines()[2:]] == list(next_commands("my-shop"))


def test_app_is_about_thirty_lines_of_code(project: Path) -> None:
    lines = (project / "my_shop.py").read_text().splitlines()

    assert len([line for line in lines if line.strip()]) <= 38


def test_no_mark_of_the_template_is_left(project: Path) -> None:
    for file in project.iterdir():
        if file.is_file():
            assert "@name@" not in (text := file.read_text()), file
            assert "@module@" not in text, file
            assert "@version@" not in text, file


def test_settings_name_the_app_and_the_version(project: Path) -> None:
    settings: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text())

    assert settings["project"]["name"] == "my-shop"
    assert settings["project"]["dependencies"][0].startswith("linkspan>=0.")
    assert settings["tool"]["linkspan"]["app"] == "my_shop:app"


def test_its_own_test_passes(project: Path) -> None:
    assert "2 passed" in run(project, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_it_is_formatted_and_clean(project: Path) -> None:
    run(project, str(BIN / "ruff"), "format", "--check", ".")
    run(project, str(BIN / "ruff"), "check", "--no-cache", ".")


@pytest.mark.parametrize("checker", [("mypy",), ("pyright", "--pythonpath", sys.executable)], ids=lambda given: given[0])
def test_it_type_checks_strictly(checker: tuple[str, ...], project: Path) -> None:
    run(project, str(BIN / checker[0]), *checker[1:], ".")


def test_folder_that_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")

    with pytest.raises(SetupError, match="There is a 'shop' here already: take another name"):
        make("shop", tmp_path)
    assert [file.name for file in (tmp_path / "shop").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["", "Shop", "9shop", "my shop", "../shop", "a--b", "shop-", "a.b", "größe", "a" * 51, "shop/x"])
def test_bad_name_is_refused_with_what_to_write(name: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"A project cannot be called .*write lower-case letters"):
        make(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["class", "match", "json", "linkspan", "test", "asyncio"])
def test_name_that_python_knows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="means something to Python already"):
        make(name, tmp_path)


def test_parent_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be made here"):
        make("shop", tmp_path / "file")
