"""The pages agree with each other and with the code they describe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import linkspan
from linkspan.cli.commands import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_of_page_lead_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()] == []


def test_every_page_is_linked() -> None:
    """A page that no other page names is not found by anyone."""
    named = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))}

    assert [str(page.relative_to(ROOT)) for page in PAGES if page.resolve() not in named and page.name != "README.md"] == []


@pytest.mark.parametrize("name", linkspan.__all__)
def test_glossary_has_public_name(name: str) -> None:
    assert re.search(rf"(\*\*|`){name}(\*\*|`)", text("reference/glossary.md"))


def commands(group: object, path: str = "linkspan") -> list[tuple[str, TyperCommand]]:
    """Return each command with its full name."""
    if isinstance(group, TyperGroup):
        return [found for name, command in group.commands.items() for found in commands(command, f"{path} {name}")]
    assert isinstance(group, TyperCommand)
    return [(path, group)]


COMMANDS = commands(get_command(cli))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_reference_has_command_with_options(path: str, command: TyperCommand) -> None:
    line = next((line for line in text("reference/command-line.md").splitlines() if line.startswith(f"| `{path} ")), "")
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]

    assert line
    assert [option for option in options if option not in line] == []


def test_configuration_names_each_variable() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r"environ(?:\.get)?[\[(]\"(LINKSPAN_[A-Z_]+)", source)}

    assert read == set(re.findall(r"`(LINKSPAN_[A-Z_]+)`", text("reference/configuration.md")))


def test_every_test_that_guarantees_name_exists() -> None:
    """A promise is worth its test."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text("explanation/guarantees.md"))
    missing = [(file, name) for file, name in named if not (ROOT / file).exists() or f"def {name}" not in (ROOT / file).read_text("utf-8")]

    assert len(named) > 15
    assert missing == []


def test_every_row_of_the_guarantees_names_a_test() -> None:
    rows = [line for line in text("explanation/guarantees.md").splitlines() if line.startswith("| ") and not line.startswith("| promise")]

    assert [row for row in rows if "`tests/" not in row] == []


@pytest.mark.parametrize("name", linkspan.__all__)
def test_api_reference_has_public_name(name: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference/api").glob("*.md")]

    assert any(f"::: linkspan.{name}\n" in page for page in pages)
