"""Own one nats-server for all processes that use a directory, and stop it after the last of them.

Process entry: `python -m linkspan.brokers.watchdog RUN_DIRECTORY FD`, where FD is one end of a Unix socket pair whose other
end belongs to the first owner. Only the standard library is imported, so that it also starts as a plain file, in a few
milliseconds. Owners keep a connection open; the kernel closes it however they die. Lines of JSON:

    owner -> watchdog   one `Order`, by the first owner only; later only the end of the stream
    watchdog -> owner   one `Hello` as soon as the server answers, or {"error": sentence}; the end of the stream once the
                        server is down, or at once when others still use it

The real clock and real processes are the point here: nothing of this takes part in simulated time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Hello", "Order", "State", "is_private", "read_greeting", "read_line", "render_config", "write_private"]

HOST = "127.0.0.1"
CONTEXT = Path("nats", "context", "linkspan.json")
SOCKET_NAME = "watchdog.sock"
GRACE = 0.25
"""Seconds without any owner before the server is stopped."""
STOP_LIMIT = 10.0
"""Seconds for an orderly stop of nats-server before it is killed."""
LOCK_LIMIT = 15.0
"""Seconds to wait for the previous server of the directory to let go of its files; longer than STOP_LIMIT."""
_PATH_LIMIT = 100  # sockaddr_un holds 104 bytes on BSD and 108 on Linux, with the final NUL
_LINE_LIMIT = 65536
_PR_SET_PDEATHSIG = 1


class Order(NamedTuple):
    """What to run, sent by the first owner over its socket, so that no secret is in argv or in the environment."""

    instance: str
    user: str
    password: str
    port: int
    """0 for any free port."""
    binary: str
    store: str
    sync: str
    max_payload: int


class Hello(NamedTuple):
    """What an owner learns when the server is ready."""

    instance: str
    user: str
    password: str
    port: int
    pid: int
    version: str
    sync: str
    max_payload: int


class State(NamedTuple):
    """What `state.json` says: where the watchdog of a directory is found. It holds no secret."""

    instance: str
    watchdog: int
    server: int
    port: int
    socket: str

    @classmethod
    def parse(cls, text: str) -> State:
        """Read a state file; a half-written or foreign one is a ValueError."""
        fields = _as_object(json.loads(text)) or {}
        if [type(fields.get(name)) for name in cls._fields] != [str, int, int, int, str] or len(fields) != len(cls._fields):
            raise ValueError("it is half-written, or not a state file")
        return cls(**fields)


def render_config(order: Order, port: int) -> str:
    """Return the configuration of nats-server: one loopback listener for clients, one account, synced file storage."""
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in order._asdict().items()}
    return f"""\
server_name: {quoted["instance"]}
host: "{HOST}"
port: {port}
max_payload: {order.max_payload}
max_connections: 4096
authorization {{
  user: {quoted["user"]}
  password: {quoted["password"]}
  timeout: 5
}}
jetstream {{
  store_dir: {quoted["store"]}
  sync_interval: {order.sync if order.sync == "always" else quoted["sync"]}
  max_memory_store: 67108864
}}
"""


def render_context(order: Order, port: int) -> str:
    """Return a context of the `nats` command line tool (ADR-21 of nats-architecture-and-design)."""
    fields = {"description": "Embedded server of Linkspan", "url": f"nats://{HOST}:{port}", "user": order.user, "password": order.password}
    return json.dumps(fields, indent=2) + "\n"


def write_private(path: Path, text: str) -> None:
    """Replace a file at once with one that only its owner may read."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(fresh, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    fresh.replace(path)


def is_private(directory: Path) -> bool:
    """Tell whether the directory is ours and closed to everybody else."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def read_line(sock: socket.socket) -> bytes:
    """Read up to the first newline (which is dropped); an early end of the stream gives b""."""
    taken = bytearray()
    while not taken.endswith(b"\n") and len(taken) < _LINE_LIMIT:
        chunk = sock.recv(1)
        if not chunk:
            return b""
        taken += chunk
    return bytes(taken).rstrip(b"\r\n")


def read_greeting(port: int, timeout: float) -> dict[str, Any] | None:
    """Read the INFO line that a NATS server sends to every new connection; nothing is sent to it."""
    try:
        with socket.create_connection((HOST, port), timeout) as sock:
            verb, _, body = read_line(sock).partition(b" ")
        return _as_object(json.loads(body)) if verb == b"INFO" else None
    except (OSError, ValueError):
        return None


def _as_object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def note(text: str) -> None:
    """Write a line to the log that nats-server writes too (stderr of this process)."""
    sys.stderr.write(f"[watchdog] {text}\n")
    sys.stderr.flush()


class Watchdog:
    """One single-threaded loop: owners come and go, the server is started, watched, restarted and stopped."""

    def __init__(self, run: Path, first: socket.socket) -> None:
        self.run = run
        self.owners: dict[socket.socket, bool] = {first: False}  # True once greeted
        self.leaving: list[socket.socket] = []
        self.selector = selectors.DefaultSelector()
        self.order = Order(**json.loads(read_line(first)))
        self.lock = 0
        self.port = 0
        self.pid = 0
        self.info: dict[str, Any] | None = None
        self.was_ready = False
        self.stopping = False
        self.probe_pause = self.restart_pause = 0.0
        self.due = 0.0  # when to probe (server running) or to start it again (server dead)
        self.started = 0.0
        self.empty_since = float("inf")
        self.listener: socket.socket | None = None
        self.reserved: socket.socket | None = None
        self.socket_path = run / SOCKET_NAME
        self.wakeup = socket.socketpair()

    def watch(self) -> None:
        """Run until the last owner is gone."""
        self.take_lock()
        self.open_log()
        self.listen_to_signals()
        self.reserve_port()
        self.listen()
        write_private(self.run / "nats.conf", render_config(self.order, self.port))
        self.start_server()
        for owner in self.owners:
            self.selector.register(owner, selectors.EVENT_READ, self.hear)
        while not self.stopping:
            self.turn(self.wait_limit())
            self.tick()
        self.stop()

    def turn(self, seconds: float | None) -> None:
        """Wait for events for at most so long, and react to each."""
        for key, _ in self.selector.select(seconds):
            react: Callable[[Any], None] = key.data
            react(key.fileobj)

    def take_lock(self) -> None:
        """Hold the files of the directory. nats-server inherits the lock: it is free when both are gone, and only then."""
        self.lock = os.open(self.run / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)

        def too_long(*_: object) -> NoReturn:
            raise TimeoutError

        signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, LOCK_LIMIT)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        except TimeoutError:
            self.fail(f"Another server keeps the files in '{self.order.store}': stop it, its process id is in 'run/state.json' there.")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def open_log(self) -> None:
        """Begin a log file of this run, which nats-server inherits; the one before it is kept beside it."""
        path = self.run / "server.log"
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name("server.log.1"))
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    def listen_to_signals(self) -> None:
        """Turn the death of the server into an event of the loop.

        SIGTERM and SIGINT change nothing: whoever stops a whole control group stops the owners too, and they need the
        server until they have drained.
        """
        ours, theirs = self.wakeup
        ours.settimeout(0)
        theirs.settimeout(0)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self.hear_signal)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.selector.register(ours, selectors.EVENT_READ, self.wake)

    def hear_signal(self, _number: int, _frame: object) -> None:
        """Do nothing more: the wakeup socket has woken the loop, and `tick` looks after the server."""

    def wake(self, sock: socket.socket) -> None:
        """Empty the wakeup socket."""
        sock.recv(4096)

    def reserve_port(self) -> None:
        """Choose the port and keep it bound, so that nobody else gets it while the server is being restarted.

        Linux lets a second socket listen on it as long as both set SO_REUSEADDR and the first does not listen; elsewhere
        the port is only chosen here.
        """
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, self.order.port))
        except OSError:
            self.fail(f"Port {self.order.port} of the embedded server is taken by another process: restart what uses '{self.order.store}'.")
        self.port = sock.getsockname()[1]
        if sys.platform == "linux":
            self.reserved = sock
        else:
            sock.close()

    def listen(self) -> None:
        """Open the socket that later owners connect to, in a private temporary directory where the path is too long."""
        self.forget_socket()
        if len(os.fsencode(self.socket_path)) > _PATH_LIMIT:
            self.socket_path = Path(tempfile.mkdtemp(prefix="linkspan-")) / SOCKET_NAME
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket_path))
        self.listener.listen(128)
        self.selector.register(self.listener, selectors.EVENT_READ, self.welcome)

    def forget_socket(self) -> None:
        """Remove the socket of a watchdog that was killed. We hold the lock, so nobody listens on it."""
        places = [self.run / SOCKET_NAME]
        with contextlib.suppress(OSError, ValueError, TypeError):
            places.append(Path(State.parse((self.run / "state.json").read_text("utf-8")).socket))
        for place in places:
            ours = place.parent == self.run or (place.parent.name.startswith("linkspan-") and is_private(place.parent))
            if ours and place.name == SOCKET_NAME:
                with contextlib.suppress(OSError):
                    place.unlink(missing_ok=True)
                    if place.parent != self.run:
                        place.parent.rmdir()

    def start_server(self) -> None:
        """Start nats-server; it dies with this process (on Linux)."""
        self.info = None
        self.started = time.monotonic()
        parent = os.getpid()
        libc = ctypes.CDLL(None)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if sys.platform == "linux":
                    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:  # else the watchdog died before prctl
                    self.become_server()
            finally:
                os._exit(127)
        self.probe_pause = 0.002
        self.due = self.started + self.probe_pause

    def become_server(self) -> NoReturn:
        """Turn this fork into nats-server, with the lock and the log and without our signal settings."""
        fcntl.fcntl(self.lock, fcntl.F_SETFD, 0)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.execv(self.order.binary, [self.order.binary, "-c", str(self.run / "nats.conf")])  # noqa: S606 # no shell is wanted

    def tick(self) -> None:
        """Do what is due: note a dead server, probe or restart it, greet owners, end when nobody is left."""
        now = time.monotonic()
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.lost_server(now)
        if self.info is None and now >= self.due:
            if self.pid:
                self.probe(now)
            else:
                self.start_server()
        if self.owners:
            self.empty_since = float("inf")
            self.release_leaving()
        elif self.empty_since > now:
            self.empty_since = now
        elif now - self.empty_since >= GRACE:
            self.stopping = True

    def wait_limit(self) -> float | None:
        """Return the seconds until `tick` has something to do, None when only an event can bring it."""
        moments = [self.due] if self.info is None else []
        if not self.owners:
            moments.append(min(self.empty_since, time.monotonic()) + GRACE)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def lost_server(self, now: float) -> None:
        """Plan the restart on the same port: at once, or later when it has just been started."""
        self.pid, self.info = 0, None
        if not self.was_ready:
            self.fail(f"nats-server did not start in '{self.order.store}': read '{self.run / 'server.log'}'.")
        lived = now - self.started
        self.restart_pause = 0.0 if lived > 1.0 else min(2.0, max(0.05, self.restart_pause * 2))
        self.due = now + self.restart_pause
        note("nats-server ended by itself; starting it again")

    def probe(self, now: float) -> None:
        """Ask the port who is there; the server is ready when it answers with our name."""
        info = read_greeting(self.port, 1.0)
        if info is None or info.get("server_name") != self.order.instance:
            self.probe_pause = min(0.05, self.probe_pause * 1.5)
            self.due = now + self.probe_pause
            return
        self.info = info
        self.was_ready = True
        context = self.run / CONTEXT
        context.parent.parent.mkdir(mode=0o700, exist_ok=True)
        context.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(context, render_context(self.order, self.port))
        state = State(self.order.instance, os.getpid(), self.pid, self.port, str(self.socket_path))
        write_private(self.run / "state.json", json.dumps(state._asdict()))
        for owner in list(self.owners):
            self.greet(owner)

    def welcome(self, listener: socket.socket) -> None:
        """Accept one more owner."""
        sock, _ = listener.accept()
        self.owners[sock] = False
        self.selector.register(sock, selectors.EVENT_READ, self.hear)
        if self.info is not None:
            self.greet(sock)

    def greet(self, owner: socket.socket) -> None:
        """Tell an owner, once, where the server is."""
        if self.owners[owner] or self.info is None:
            return
        self.owners[owner] = True
        order = self.order
        version = str(self.info.get("version"))
        hello = Hello(order.instance, order.user, order.password, self.port, self.pid, version, order.sync, order.max_payload)
        self.tell(owner, hello._asdict())

    def tell(self, owner: socket.socket, fields: dict[str, Any]) -> None:
        """Send a line; an owner that is gone is noticed when its stream ends."""
        with contextlib.suppress(OSError):
            owner.sendall(json.dumps(fields).encode() + b"\n")

    def hear(self, owner: socket.socket) -> None:
        """Notice that an owner left or died."""
        with contextlib.suppress(OSError):
            if owner.recv(4096):
                return
        self.selector.unregister(owner)
        del self.owners[owner]
        self.leaving.append(owner)

    def release_leaving(self) -> None:
        """Let go of those who left."""
        for owner in self.leaving:
            owner.close()
        self.leaving.clear()

    def stop(self) -> None:
        """Stop the server in order, remove what names it, then let the last owners go."""
        for name in ("state.json", "nats.conf", CONTEXT):
            (self.run / name).unlink(missing_ok=True)
        self.close_listener()
        self.stop_server()
        os.close(self.lock)  # before anyone is let go: whoever comes next finds the directory free
        self.release_leaving()

    def stop_server(self) -> None:
        """Ask nats-server to end, and kill it when it does not."""
        if not self.pid:
            return
        os.kill(self.pid, signal.SIGTERM)
        limit = time.monotonic() + STOP_LIMIT
        while not os.waitpid(self.pid, os.WNOHANG)[0]:
            if time.monotonic() >= limit:
                note("nats-server did not stop in time; killing it")
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            self.turn(limit - time.monotonic())
        self.pid = 0

    def fail(self, sentence: str) -> NoReturn:
        """Tell every owner why there is no server, and end."""
        note(sentence)
        for owner in self.owners:
            self.tell(owner, {"error": sentence})
        if self.lock and self.port:
            (self.run / "nats.conf").unlink(missing_ok=True)
        self.close_listener()
        sys.exit(1)

    def close_listener(self) -> None:
        """Take in no more owners."""
        if self.listener is None:
            return
        self.selector.unregister(self.listener)
        self.listener.close()
        self.socket_path.unlink(missing_ok=True)
        if self.socket_path.parent != self.run:
            self.socket_path.parent.rmdir()


def main(arguments: list[str]) -> None:
    """Detach from the process that started us and watch."""
    if os.fork():
        os._exit(0)  # whoever started us need not reap us
    first = socket.socket(fileno=int(arguments[1]))
    first.set_inheritable(False)  # else nats-server would hold the connection of its first owner
    Watchdog(Path(arguments[0]), first).watch()


if __name__ == "__main__":
    main(sys.argv[1:])
