"""Start-up times: seconds to import the package, seconds until `linkspan run` answers its first query."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import ROOT, BenchError, Child, free_port

_IMPORT = "import time; begin = time.perf_counter(); from linkspan import App, Client, Service; print(time.perf_counter() - begin)"


def import_seconds() -> float:
    """Import what an app needs in a fresh process: the package itself loads its running parts only when they are named."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", _IMPORT], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"importing linkspan failed:\n{done.stderr[-2000:]}"
        raise BenchError(message)
    return float(done.stdout)


def ready_seconds(scratch: Path, number: int) -> float:
    """Start `linkspan run` with its embedded broker and store in an empty directory, until a query over HTTP is answered."""
    port, directory = free_port(), scratch / f"run{number}"
    directory.mkdir()
    begin = time.perf_counter()
    command = str(Path(sys.executable).with_name("linkspan"))
    settings = {"LINKSPAN_HTTP": f"127.0.0.1:{port}", "LINKSPAN_DATA": str(directory)}
    child = Child(f"run{number}", [command, "run", "benchmarks.ours.hello:app"], scratch, environment=settings, stdout=subprocess.DEVNULL)
    try:
        while not _answers(port):
            if child.ended or time.perf_counter() - begin > 15:
                message = f"'linkspan run' does not answer:\n{child.tail()}"
                raise BenchError(message)
            time.sleep(0.01)
        return time.perf_counter() - begin
    finally:
        child.stop()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("POST", "/bench.orders.v1.Orders/GetOrder", '{"orderId": "7"}', {"content-type": "application/json"})
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
