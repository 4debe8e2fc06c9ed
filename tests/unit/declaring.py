"""Contract modules from text, so that each wrong declaration is a test of its own."""

from __future__ import annotations
import __future__ as future

import itertools
import sys
from types import ModuleType
from typing import Any

_NUMBERS = itertools.count(1)
_HEAD = """
from typing import *
from linkspan.contract import Contract
from linkspan.message import *
from linkspan.operation import *
"""


def declare(text: str, *, package: str = "", module: str = "", owner: str = "", postponed: bool = False) -> Any:
    """Import `text` as a contract module with a package and a name of its own; the module stays, as a real one does.

    `postponed` is `from __future__ import annotations`.
    """
    number = next(_NUMBERS)
    name = module or f"declared_{number}"
    made = ModuleType(name)
    sys.modules[name] = made
    source = f"{_HEAD}\ncontract = Contract({(package or f'declared{number}.v1')!r}, owner={owner!r})\n{text}"
    exec(compile(source, f"<{name}>", "exec", future.annotations.compiler_flag if postponed else 0, dont_inherit=True), vars(made))
    return made
