"""What engines promise: refused below what is asked for, told once, looked at again while the app runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.app import App
from linkspan.attestation import EVERY, Attestation, floor_of
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Durability, Finding, attested
from linkspan.readiness import Readiness
from linkspan.testing.clock import fake_runtime, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WEAK = Finding("disk.sync", "process", "The disk has sync 'off': a power cut loses", "set sync to on")
LOST = Finding("disk.storage", "none", "The disk has storage 'memory': a restart loses", "set storage to file")
NOTED = Finding("disk.copies", "power", "The disk has copies '1': it may be away", "set copies to 3")


class Engine:
    """Answers what it is told to."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        self.error: Exception | None = None
        self.asked = 0

    async def attest(self) -> Durability:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return attested("disk", self.findings, {})

    @property
    def asks(self) -> dict[str, Callable[[], Awaitable[Durability]]]:
        return {"broker": self.attest}


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.__dict__["setting"] for record in caplog.records if record.name == "linkspan.durability" and record.levelno >= level]


def test_level_is_the_lowest_and_the_worst_comes_first() -> None:
    found = attested("disk", [NOTED, WEAK, LOST], {})

    assert found.level == "none"
    assert found.findings == (LOST, WEAK, NOTED)
    assert attested("disk", [], {}).level == "power"


@pytest.mark.parametrize(
    ("given", "finding", "accepted"),
    [
        ("power", WEAK, False),
        ("power", NOTED, True),
        ("process", LOST, False),
        ("process", WEAK, True),
        ("any", LOST, True),
        ("", LOST, False),
    ],
)
async def test_start_below_what_is_asked_for_is_refused(given: str, finding: Finding, accepted: bool) -> None:
    promise = Attestation(floor_of(given), fake_runtime()[0].clock)
    if accepted:
        await promise.start(Engine(finding).asks)
        await promise.aclose()
        return
    with pytest.raises(SetupError) as caught:
        await promise.start(Engine(finding).asks)
    text = str(caught.value)
    assert finding.text in text
    assert finding.cure in text
    assert f"LINKSPAN_DURABILITY={'any' if finding is LOST else 'process'}" in text


def test_unknown_durability_is_refused_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="cannot be 'perhaps': choose power, process or any"):
        App(durability="perhaps")
    monkeypatch.setenv("LINKSPAN_DURABILITY", "always")
    with pytest.raises(SetupError, match="cannot be 'always'"):
        App()


async def test_setting_changed_at_run_time_is_told_once_and_makes_unready(caplog: pytest.LogCaptureFixture) -> None:
    runtime, clock = fake_runtime()
    engine, promise, readiness = Engine(NOTED), Attestation("process", runtime.clock), Readiness()
    with caplog.at_level(logging.INFO, "linkspan.durability"):
        await promise.start(engine.asks)
        readiness._promise = promise
        await settle()
        assert told(caplog) == []
        assert readiness.notes() == {"broker": f"power: {NOTED.text}"}

        engine.findings = (NOTED, LOST)
        for _ in range(3):
            await clock.advance(EVERY)
            await settle()

        assert engine.asked == 4
        assert told(caplog) == ["disk.storage"]
        assert promise.below() == {"broker": "none"}
        engine.findings = (NOTED,)
        await clock.advance(EVERY)
        await settle()
        assert promise.below() == {}
        assert told(caplog, logging.INFO) == ["disk.copies", "disk.storage", "disk.storage"]
    await promise.aclose()


async def test_engine_that_is_away_for_a_moment_keeps_what_it_said() -> None:
    runtime, clock = fake_runtime()
    engine, promise = Engine(), Attestation("power", runtime.clock)
    await promise.start(engine.asks)
    await settle()

    engine.error = Error(Code.UNAVAILABLE, "gone")
    await clock.advance(EVERY)
    await settle()

    assert promise.below() == {}
    await promise.aclose()


@pytest.mark.parametrize(("error", "level"), [(Error(Code.PERMISSION_DENIED, "no"), "process"), (SetupError("It drops messages."), "none")])
async def test_engine_that_cannot_be_asked_is_not_believed(error: Exception, level: str) -> None:
    engine, promise = Engine(), Attestation("none", fake_runtime()[0].clock)
    engine.error = error

    await promise.start(engine.asks)

    assert promise.found["broker"].level == level
    assert promise.weak()
    await promise.aclose()


async def test_app_on_the_memory_broker_starts_and_says_what_it_is_worth(tmp_path: Any) -> None:
    runtime = fake_runtime()[0]
    async with App(broker="memory://", data=tmp_path, runtime=runtime, durability="power") as app:
        assert app.readiness.notes()["broker"].startswith("none: The memory broker keeps messages in this process only")
        assert app.attestation.below() == {}
