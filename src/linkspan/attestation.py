"""Ask every engine what an acknowledgement is worth: at start, against what was asked for, and again while the app runs."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from linkspan.errors import Error, SetupError
from linkspan.ports import LEVELS, Durability, Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from linkspan.ports import Clock

    Ask: TypeAlias = Callable[[], Awaitable[Durability]]

__all__ = ["EVERY", "Attestation", "floor_of"]

EVERY = 60.0
"""Seconds between two looks: a setting that was changed under a running app is told within as many."""
PATIENCE = 10.0
"""Seconds that an engine has to answer."""
FLOORS = {"power": "power", "process": "process", "any": "none"}
TESTS_ONLY = "memory"
"""The engine that promises nothing and says so by its name: whoever chose it has chosen."""

_log = logging.getLogger("linkspan.durability")


def floor_of(given: str | None) -> str:
    """Return the least level that the app accepts, from `App(durability=)` or LINKSPAN_DURABILITY. Raises `SetupError`."""
    asked = given or os.environ.get("LINKSPAN_DURABILITY") or "process"
    if asked not in FLOORS:
        raise SetupError(f"The durability (LINKSPAN_DURABILITY) cannot be '{asked}': choose power, process or any.")
    return FLOORS[asked]


class Attestation:
    """What the engines of one app are worth, as they said last."""

    def __init__(self, floor: str, clock: Clock) -> None:
        self.floor = floor
        self.found: dict[str, Durability] = {}
        self._clock = clock
        self._asks: dict[str, Ask] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self, asks: Mapping[str, Ask]) -> None:
        """Ask each engine, log what lowers its promise, and look again from time to time.

        Raises `SetupError` for an engine that is below the floor.
        """
        self._asks = dict(asks)
        await self.look()
        self._refuse()
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="linkspan durability")

    async def aclose(self) -> None:
        """Look no more. Idempotent."""
        task, self._watching = self._watching, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.found, self._asks = {}, {}

    async def look(self) -> None:
        """Ask all engines now; log each finding that is new, and each that is gone, once."""
        for name, ask in self._asks.items():
            try:
                async with asyncio.timeout(PATIENCE):
                    found = await ask()
            except SetupError as error:
                found = Durability(name, "none", (str(error),), findings=(Finding(f"{name}.refused", "none", str(error)),))
            except (Error, TimeoutError) as error:
                if name in self.found:
                    continue  # away for a moment: what it said last stands, and readiness tells that it is away
                found = _silent(name, error.code.value if isinstance(error, Error) else "no answer")
            self._compare(name, self.found.get(name), found)
            self.found[name] = found

    def weak(self) -> Mapping[str, str]:
        """Return, by engine, what lowers its promise: level and reasons; empty where nothing does."""
        return {name: f"{each.level}: {'; '.join(each.reasons)}" for name, each in self.found.items() if each.reasons}

    def below(self) -> Mapping[str, str]:
        """Return the engines that are below what was asked for, with their level."""
        return {name: each.level for name, each in self.found.items() if self._is_below(each)}

    def _is_below(self, found: Durability) -> bool:
        return found.engine != TESTS_ONLY and LEVELS.index(found.level) < LEVELS.index(self.floor)

    def _refuse(self) -> None:
        for name, found in self.found.items():
            if not self._is_below(found):
                continue
            worst = [each for each in found.findings if LEVELS.index(each.level) < LEVELS.index(self.floor)]
            what = "; ".join(each.text for each in worst) or "; ".join(found.reasons)
            cure = "; ".join(dict.fromkeys(each.cure for each in worst if each.cure)) or "change that"
            said = next(word for word, level in FLOORS.items() if level == self.floor)
            lower = next(word for word, level in FLOORS.items() if LEVELS.index(level) <= LEVELS.index(found.level))
            raise SetupError(
                f"The {name} promises '{found.level}', and '{said}' is asked for. {what}. To do: {cure}; or accept it with "
                f"LINKSPAN_DURABILITY={lower}."
            )

    def _compare(self, name: str, before: Durability | None, now: Durability) -> None:
        known: set[tuple[str, str]] = set() if before is None else set(_keys(before))
        for key, finding in _keys(now).items():
            if key not in known:
                extra = {"engine": name, "setting": finding.name, "level": finding.level, "finding": finding.text, "cure": finding.cure}
                log = _log.info if finding.level == LEVELS[-1] or now.engine == TESTS_ONLY else _log.warning
                log("An engine promises less than it could.", extra=extra)
        for key in known - set(_keys(now)):
            _log.info("An engine promises more again.", extra={"engine": name, "setting": key[0], "level": now.level})

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(EVERY)
            await self.look()


def _keys(found: Durability) -> dict[tuple[str, str], Finding]:
    """Return findings by what they are about; engines that only give reasons have one finding each of these."""
    findings = found.findings or tuple(Finding(f"{found.engine}.note", found.level, reason) for reason in found.reasons)
    return {(each.name, each.text): each for each in findings}


def _silent(name: str, why: str) -> Durability:
    text = f"The {name} could not be asked what it promises ({why})"
    finding = Finding(f"{name}.unknown", "process", text, "let this login read its settings")
    return Durability(name, "process", (text,), findings=(finding,))
