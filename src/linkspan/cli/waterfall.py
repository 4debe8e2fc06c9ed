"""A flow as a waterfall: one line per step, under the step that led to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from linkspan.cli.table import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from linkspan.cli.trace import Flow, Passed
    from linkspan.ports import Letter
    from linkspan.telemetry.record import Span

__all__ = ["Step", "lines", "plain", "steps"]

WIDTH = 32
"""Characters of a bar that spans the whole flow."""


@dataclass(slots=True)
class Step:
    """One line: `began` in seconds since 1970, None for `seconds` where it still waits; `state` is empty where all is well."""

    kind: str
    what: str
    began: float
    seconds: float | None
    state: str = ""
    below: list[Step] = field(default_factory=list["Step"])


def steps(flow: Flow, now: float) -> list[Step]:
    """Return the first steps of a flow, each with what it led to."""
    by_span: dict[str, Step] = {}
    roots: list[Step] = []
    runs = [span for span in flow.spans if (span.path, span.side) == ("durable", "server")]
    direct = [span for span in flow.spans if (span.path, span.side) != ("durable", "server")]
    every = [(span, _span_step(span)) for span in (*direct, *runs)]
    for span, step in every:
        by_span[span.span] = step
    by_message = {passed.envelope.id: _message_steps(passed, now) for passed in flow.messages}
    for passed in flow.messages:
        above = by_span.get(passed.envelope.trace[36:52])
        (above.below if above else roots).extend(by_message[passed.envelope.id])
    for span, step in every:
        outer = by_message[span.id][-1] if span in runs and span.id in by_message else by_span.get(span.parent)
        (outer.below if outer is not None and outer is not step else roots).append(step)
    _add_waits(flow, runs, by_message)
    for service, letter, envelope in flow.letters:
        outer = by_message[envelope.id][-1] if envelope.id in by_message else None
        (outer.below if outer else roots).append(_letter_step(service, letter))
    return _sorted(roots)


def _sorted(found: list[Step]) -> list[Step]:
    for step in found:
        step.below = _sorted(step.below)
    return sorted(found, key=lambda step: step.began)


def _span_step(span: Span) -> Step:
    if span.path == "durable":
        what = f"{span.service} handles {span.operation}"
        return Step("handler", f"{what}, attempt {span.attempt}" if span.attempt > 1 else what, span.began, span.seconds, _state(span.code))
    verb = "calls" if span.side == "client" else "answers"
    return Step(
        "call" if span.side == "client" else "handler",
        f"{span.service} {verb} {span.operation}",
        span.began,
        span.seconds,
        _state(span.code),
    )


def _state(code: str) -> str:
    return "" if code == "ok" else "handled already" if code == "Duplicate" else code


def _message_steps(passed: Passed, now: float) -> list[Step]:
    name = f"{passed.envelope.type} in the outbox of {passed.envelope.source.removeprefix('/')}"
    if not passed.stored:
        return [Step("outbox", name, passed.written, None, f"waiting for {max(0.0, now - passed.written):.1f} s")]
    wait = max(0.0, passed.stored - passed.written)
    return [
        Step("outbox", name, passed.stored - wait, wait),
        Step("stored", f"{passed.envelope.type} stored in {passed.topic}", passed.stored, 0.0),
    ]


def _add_waits(flow: Flow, runs: list[Span], by_message: dict[str, list[Step]]) -> None:
    """Add the time a message spent in the broker before each service took it, and between two tries of it."""
    stored = {passed.envelope.id: passed.stored for passed in flow.messages}
    for id_, service in dict.fromkeys((span.id, span.service) for span in runs):
        tries = sorted((span for span in runs if (span.id, span.service) == (id_, service)), key=lambda span: span.began)
        if id_ not in by_message:
            continue
        outer, since, kind, what = by_message[id_][-1], stored[id_], "broker", f"waits in the broker for {service}"
        for span in tries:
            if since and span.began - since > 0.0:
                outer.below.append(Step(kind, what, since, span.began - since))
            since, kind, what = span.began + span.seconds, "retry", f"{service} waits before it tries again"


def _letter_step(service: str, letter: Letter) -> Step:
    ends = f", due {moment(letter.due)}" if letter.state.value == "parked" else ""
    code = f", {letter.code}" if letter.code else ""
    state = f"{letter.state.value} after {letter.attempts} tries{code}{ends}"
    return Step("held", f"{service} holds it as number {letter.position}", letter.received, None, state)


def _flat(found: list[Step], depth: int = 0) -> Iterator[tuple[int, Step]]:
    for step in found:
        yield depth, step
        yield from _flat(step.below, depth + 1)


def plain(found: list[Step]) -> list[dict[str, Any]]:
    """Return the steps as plain values, in the order of the lines; `depth` says what stands under what."""
    return [
        {"depth": depth, "kind": step.kind, "what": step.what, "began": step.began, "seconds": step.seconds, "state": step.state}
        for depth, step in _flat(found)
    ]


def lines(found: list[Step]) -> Iterator[str]:
    """Return the waterfall: when, how long, a bar in its place, and what it was."""
    every = list(_flat(found))
    first = min(step.began for _, step in every)
    last = max(step.began + (step.seconds or 0.0) for _, step in every)
    scale = WIDTH / (last - first) if last > first else 0.0
    for depth, step in every:
        start = min(WIDTH - 1, int((step.began - first) * scale))
        length = max(1, min(WIDTH - start, round((step.seconds or 0.0) * scale)))
        mark = {"outbox": "─", "broker": "─", "retry": "·", "stored": "│"}.get(step.kind, "━")
        bar = (" " * start + mark * length).ljust(WIDTH)
        long = "      -   " if step.seconds is None else f"{step.seconds * 1000:>8.1f}ms"
        text = f"{(step.began - first) * 1000:>9.1f} {long}  {bar}  {'  ' * depth}{step.what}"
        yield text + (typer.style(f"  {step.state}", fg="red") if step.state else "")
