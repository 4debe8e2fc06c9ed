"""Limits: what is worth another try, how long the pauses are, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from linkspan import App, Code, Error, Limits, Service, SetupError
from linkspan.cli.describe import described, lines
from tests.unit.durable import Charge, Payments, Placed, Receipt

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


class RefusedCardError(Error):
    """An error of the user's own, with a code that says: try again."""


async def on_placed(_ctx: Context, _event: Placed) -> None: ...


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (Error(Code.UNAVAILABLE, "Away."), True),
        (Error(Code.INVALID_ARGUMENT, "Wrong."), False),
        (KeyError("anything"), True),
        (ConnectionResetError(), True),
        (OSError(), False),
        (TimeoutError(), True),
        (PermissionError(), False),
        (RefusedCardError(Code.UNAVAILABLE, "No."), False),
        (ExceptionGroup("several", [TimeoutError(), ExceptionGroup("more", [ConnectionError()])]), True),
        (ExceptionGroup("several", [TimeoutError(), OSError()]), False),
    ],
)
def test_most_derived_named_class_decides(error: Exception, *, helps: bool) -> None:
    limits = Limits(transient=(ConnectionError, TimeoutError), terminal=(OSError, RefusedCardError))

    assert limits.helps(error) is helps


def test_a_code_decides_although_all_exceptions_are_terminal() -> None:
    limits = Limits(terminal=(Exception,), transient=(ConnectionError,))

    assert limits.helps(Error(Code.UNAVAILABLE, "Away."))
    assert not limits.helps(ValueError())
    assert limits.helps(ConnectionError())


def test_pauses_have_full_jitter_and_double_up_to_a_bound() -> None:
    limits = Limits(inline=40, backoff=0.1)

    assert [limits.pause(tries, 1.0) for tries in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert limits.pause(2, 0.25) == 0.1
    assert limits.pause(1, 0.0) == 0.0
    assert limits.pause(39, 1.0) == 10.0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"inline": 0}, "use 1 or more"),
        ({"concurrency": 0}, "use 1 or more"),
        ({"backoff": -1.0}, "use 0 or more"),
        ({"timeout": 0.0}, "more than 0 seconds"),
        ({"max_age": float("nan")}, "more than 0 seconds"),
        ({"parked": (10.0, -1.0)}, "pauses from 0 on"),
        ({"parked": (80_000.0, 80_000.0)}, "max_age=86400"),
        ({"terminal": ValueError}, "exception classes in a tuple"),
        ({"transient": (KeyboardInterrupt,)}, "exception classes in a tuple"),
        ({"transient": (OSError,), "terminal": (OSError,)}, "choose one"),
    ],
)
def test_limits_that_cannot_work_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError, match=text):
        Limits(**wrong)


def test_limits_and_timeout_of_one_handler_are_refused() -> None:
    service = Service("mail")

    with pytest.raises(SetupError, match="write the timeout into the limits"):
        service.on(Placed, limits=Limits(), timeout=5.0)


def test_limits_of_a_query_are_refused() -> None:
    service = Service("mail", Payments)

    with pytest.raises(SetupError, match="no message ever carries it"):
        service.handles(Payments.find, timeout=5.0)


def test_retention_shorter_than_the_retries_is_refused() -> None:
    service = Service("mail", retention=3_600.0)
    service.on(Placed)(on_placed)

    with pytest.raises(SetupError, match="may come again for 86400 s: remember at least as long"):
        service.check()


def test_describe_shows_what_holds_for_each_handler(tmp_path: Path) -> None:
    service = Service("mail", Payments, retention=10 * 86_400.0, limits=Limits(terminal=(ValueError,)))
    service.on(Placed, timeout=120.0)(on_placed)

    async def charge(_ctx: Context, request: Charge) -> Receipt:
        return Receipt(order=request.order)

    service.handles(Payments.charge, limits=Limits(inline=1, parked=(), concurrency=2))(charge)
    service.handles(Payments.find)(charge)
    app = described(App(service, data=tmp_path))
    told = "\n".join(lines(app))

    (mail,) = app["services"]
    assert mail["reacts_to"][0]["limits"]["timeout"] == 120.0
    assert mail["limits"]["terminal"] == ["ValueError"]
    assert "1 tries at once, parked for no s, given up after 24 h; 30 s for one run, 2 at a time" in told
    assert "120 s for one run, 16 at a time; terminal: ValueError" in told
    assert "remembers for 10 days" in told
