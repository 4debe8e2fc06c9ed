"""Processes, clocks and medians: what every row of the table is measured with.

Each side is a process of its own that takes commands on stdin, one JSON object a line, and
answers on stdout (`benchmarks.worker` is the other end). CPU is the kernel's CPU clock of a
whole process, all its threads, live or finished (clock_getcpuclockid(3)), and of its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import math
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import nats.js.errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
CALLERS_PUBLISH = 256


class BenchError(Exception):
    """A side that could not be measured; the run reports it and goes on with the next row."""


# --- clocks -----------------------------------------------------------------------------------


def cpu_ns(pid: int) -> int:
    """Read the CPU time of a process and of its children, in nanoseconds; 0 when it is gone."""
    return sum(_own_cpu_ns(member) for member in _tree(pid))


def _own_cpu_ns(pid: int) -> int:
    # The clock id that clock_getcpuclockid(3) makes: all threads, precise to the nanosecond,
    # where /proc/<pid>/stat counts in ticks of 10 ms and /proc/<pid>/task forgets finished threads.
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def _tree(pid: int) -> list[int]:
    found = [pid]
    for member in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{member}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
    return found


class Meter:
    """Wall time and CPU time of some processes between two moments."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._cpu: dict[str, int] = {}
        self._wall = 0

    def start(self) -> None:
        """Note where the clocks stand."""
        self._cpu = {role: cpu_ns(pid) for role, pid in self._pids.items()}
        self._wall = time.monotonic_ns()

    def stop(self, operations: int) -> dict[str, Any]:
        """Say how long `operations` took since `start`: seconds, and CPU microseconds of each role per operation."""
        seconds = (time.monotonic_ns() - self._wall) / 1e9
        cpu = {role: (cpu_ns(pid) - self._cpu[role]) / 1e3 / operations for role, pid in self._pids.items()}
        return {"operations": operations, "seconds": seconds, "cpu": cpu}


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one side: operations per second and CPU microseconds per operation, by role."""

    rate: float
    cpu: dict[str, float] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Sample:
        """Read a worker's answer."""
        return cls(answer["operations"] / answer["seconds"], dict(answer["cpu"]), dict(answer.get("extra", {})))

    @property
    def cpu_total(self) -> float:
        """Add up all roles."""
        return sum(self.cpu.values())


def median(values: Iterable[float]) -> float:
    """Take the median; rounds are few, so it is what a single outlier cannot move."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Give (max - min) / median: how far the rounds lie apart."""
    return (max(values) - min(values)) / median(values) if values else 0.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Give the bounds of the median with 95 % confidence, by the ranks of the values (the sign test: it knows no distribution).

    Fewer than six values have no such bounds: the smallest and the largest stand for them.
    """
    ranked, count = sorted(values), len(values)
    below, rank = 0.0, 0
    while rank < count // 2 and below + math.comb(count, rank) / 2**count <= 0.025:
        below += math.comb(count, rank) / 2**count
        rank += 1
    rank = max(rank, 1)
    return ranked[rank - 1], ranked[count - rank]


# --- bytes ------------------------------------------------------------------------------------


def wire_bytes(port: int) -> int:
    """Count what this process has sent to a port and received from it on connections that are open: all bytes above TCP.

    From TCP_INFO (tcp(7)): `tcpi_bytes_acked` and `tcpi_bytes_received`.
    """
    total = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if entry.readlink().name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as member:
                    total += _passed(member, port)
    return total


def _passed(member: socket.socket, port: int) -> int:
    if member.family not in {socket.AF_INET, socket.AF_INET6} or member.getpeername()[1] != port:
        return 0
    facts = member.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return sum(struct.unpack_from("<QQ", facts, 120))


# --- processes --------------------------------------------------------------------------------


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a run that is killed leaves no server and no worker behind (prctl(2)).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Child:
    """A child process with its log in a file."""

    def __init__(self, name: str, argv: list[str], scratch: Path, *, environment: Mapping[str, str] | None = None, **options: Any) -> None:
        self.name = name
        self.log = scratch / f"{name}.log"
        full = os.environ | (environment or {}) | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=full,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this program starts no threads
                **options,
            )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        """Tell whether the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the process: politely, then not."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def tail(self) -> str:
        """Give the last lines of the log, for a report of what went wrong."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


class Nats(Child):
    """A nats-server from the wheel with its settings spelt out."""

    def __init__(self, scratch: Path, *, sync: str = "default") -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.sync = sync
        name = f"nats-{sync}-{self.port}"
        self._store = scratch / f"{name}.store"
        lines = [f"listen: 127.0.0.1:{self.port}", "jetstream {", f"  store_dir: '{self._store}'", "  max_file_store: 8GB"]
        lines += ["  sync_interval: always"] if sync == "always" else []
        config = scratch / f"{name}.conf"
        config.write_text("\n".join([*lines, "}", ""]))
        server = Path(sys.executable).with_name("nats-server")
        super().__init__(name, [str(server), "-c", str(config)], scratch, stdout=subprocess.DEVNULL)
        wait_for_port(self.port, self)

    @property
    def settings(self) -> str:
        """Describe the server for the table."""
        text = "every write" if self.sync == "always" else "its default (2 min)"
        return f"nats-server 2.15 from the wheel, loopback, file storage, R1, sync_interval: {text}"

    def stop(self) -> None:
        """End the server and remove what it stored."""
        super().stop()
        shutil.rmtree(self._store, ignore_errors=True)

    def reset(self) -> None:
        """Delete every stream, so that each round starts on an empty server."""
        asyncio.run(_delete_streams(self.url))

    def unsettled(self, patience: float = 5.0) -> int:
        """Count messages not delivered or not acknowledged, waiting up to `patience` seconds for the count to reach 0."""
        return asyncio.run(_count_unsettled(self.url, patience))


async def _delete_streams(url: str) -> None:
    connection = await nats.connect(url)
    try:
        stream = connection.jetstream()
        for info in await stream.streams_info():
            await stream.delete_stream(str(info.config.name))
    finally:
        await connection.close()


async def _count_unsettled(url: str, patience: float) -> int:
    connection = await nats.connect(url)
    try:
        until = time.monotonic() + patience
        while (left := await _consumer_backlog(connection.jetstream())) and time.monotonic() < until:  # noqa: ASYNC110 - the server only answers questions
            await asyncio.sleep(0.05)
        return left
    finally:
        await connection.close()


async def _consumer_backlog(stream: Any) -> int:
    left = 0
    for info in await stream.streams_info():
        # A consumer that was removed between the two questions has nothing left to do.
        with contextlib.suppress(nats.js.errors.NotFoundError):
            for consumer in await stream.consumers_info(info.config.name):
                left += (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
    return left


class Worker(Child):
    """One side's process: takes a command, answers when it is done."""

    def __init__(self, module: str, scratch: Path, *, name: str = "") -> None:
        argv = [sys.executable, "-m", f"benchmarks.{module}"]
        super().__init__(name or module, argv, scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._rest = b""

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command without waiting."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            message = f"'{self.name}' ended before it was asked to {do}:\n{self.tail()}"
            raise BenchError(message) from None

    def hear(self, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the answer of the last command."""
        assert self._process.stdout
        until = time.monotonic() + timeout
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
            if not chunk:
                reason = "ended" if ready else f"said nothing for {timeout:g} s"
                message = f"'{self.name}' {reason}:\n{self.tail()}"
                raise BenchError(message)
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            message = f"'{self.name}' failed: {answer['error']}\n{self.tail()}"
            raise BenchError(message)
        return answer

    def ask(self, do: str, *, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.tell(do, **arguments)
        return self.hear(timeout)


def free_port() -> int:
    """Find a port on the loopback interface that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, child: Child, patience: float = 10.0) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    message = f"'{child.name}' does not listen on {port}:\n{child.tail()}"
    raise BenchError(message)


# --- rounds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a row and how to run one round of it."""

    name: str
    run: Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to do: rounds, seconds for all rounds of a row together, and a factor on the number of operations."""

    rounds: int = 5
    budget: float = 60.0
    scale: float = 1.0

    def count(self, operations: int) -> int:
        """Scale a number of operations."""
        return max(200, int(operations * self.scale))


def interleave(sides: Sequence[Side], effort: Effort, show: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Run the sides in turn, round after round (A B A B ...), until the rounds or the budget are used up."""
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    started = time.monotonic()
    for number in range(effort.rounds):
        for side in sides:
            show(f"round {number + 1}/{effort.rounds}  {side.name}")
            samples[side.name].append(side.run())
        used = time.monotonic() - started
        if used + used / (number + 1) > effort.budget:
            break
    return samples


def end_to_end(producer: Worker, reader: Worker, work: tuple[str, dict[str, Any]], operations: int, pids: dict[str, int]) -> Sample:
    """Warm up with an eighth, then measure from the first operation of the producer to the last handled message."""
    verb, arguments = work
    for number in (operations // 8, operations):
        reader.ask("expect", skip=0, measured=number, total=number, pids={})
        meter = Meter(pids)
        meter.start()
        reader.tell("result")
        producer.ask(verb, operations=number, **arguments)
        reader.hear()
        answer = meter.stop(number)
    return Sample.of(answer)


def drained(nats: Nats, reader: Worker, filler: Worker, measured: int, fill: dict[str, Any], read: dict[str, Any], **pids: int) -> Sample:
    """Fill, drain, and check that every message was handled and acknowledged; `pids` are measured beside reader and nats-server."""
    skip, total = measured // 8, measured + measured // 4
    filler.ask("fill", **fill, operations=total, callers=CALLERS_PUBLISH)
    reader.ask("expect", skip=skip, measured=measured, total=total, pids={"nats-server": nats.pid, **pids})
    reader.ask("start", **read)
    answer = reader.ask("result", timeout=40)
    left = nats.unsettled()
    reader.ask("stop", total=total)
    nats.reset()
    if left:
        message = f"'{reader.name}' left {left} of {total} messages unacknowledged"
        raise BenchError(message)
    return Sample.of(answer)
