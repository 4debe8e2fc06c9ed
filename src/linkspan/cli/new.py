"""`linkspan new`: a project that runs, is tested and type-checks, in a folder of its own."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from linkspan.cli.lines import spoken
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make", "next_commands"]

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 50
_TAKEN = {"linkspan", "app", "test", "tests", "pytest", "conftest"}
STARTER = {
    "{module}.py": "app.py.txt",
    "test_{module}.py": "test_app.py.txt",
    "README.md": "README.md.txt",
    "pyproject.toml": "pyproject.toml.txt",
    ".gitignore": "gitignore.txt",
}
"""Files of a new project, and where their texts are."""


def make(name: str, parent: Path) -> list[str]:
    """Make the folder `name` in `parent` and return the names of its files. Raises `SetupError`, then nothing was made."""
    _check(name)
    folder, module = parent / name, name.replace("-", "_")
    texts = {made.format(module=module): _text(source, name, module) for made, source in STARTER.items()}
    try:
        folder.mkdir()
    except FileExistsError:
        raise SetupError(f"There is a '{name}' here already: take another name, or remove it.") from None
    except OSError as error:
        raise SetupError(f"The folder '{name}' cannot be made here ({error.strerror}): go where you may write.") from error
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return list(texts)


def _check(name: str) -> None:
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        text = f"write lower-case letters, digits and single dashes, at most {_LONGEST}, beginning with a letter, such as my-shop."
        raise SetupError(f"A project cannot be called '{name}': {text}")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise SetupError(f"A project cannot be called '{name}', which means something to Python already: take another name.")


def _text(source: str, name: str, module: str) -> str:
    text = files("linkspan.cli").joinpath("starter", source).read_text(encoding="utf-8")
    return text.replace("@name@", name).replace("@module@", module).replace("@version@", version("linkspan"))


def next_commands(name: str) -> tuple[str, str]:
    """Return the two commands that start the project, as they work in this shell."""
    return f"cd {name}", f"{spoken()} dev"
