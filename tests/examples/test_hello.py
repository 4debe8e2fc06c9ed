"""The smallest app: the README shows it as it is, and it runs as the README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELLO = ROOT / "examples" / "hello" / "hello.py"


def test_readme_shows_the_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert f"```python\n{HELLO.read_text(encoding='utf-8')}```" in readme


def test_hello_fits_on_a_screen() -> None:
    assert len(HELLO.read_text(encoding="utf-8").splitlines()) <= 34


def test_hello_answers_and_thanks(tmp_path: Path) -> None:
    """Run it as users do: embedded NATS, SQLite, a call with curl's bytes, the event on the other side, SIGTERM."""
    environment = {**os.environ, "LINKSPAN_DATA": str(tmp_path / "data"), "LINKSPAN_HTTP": "127.0.0.1:0", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "linkspan.cli", "run", "examples.hello.hello:app"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = read_until(process, r"Ready: orders, mail at (http://\S+)")
            answer = place_order(address, "7")
            thanks = read_until(process, r"(Thank you: .*)")
        finally:
            process.terminate()
        code = process.wait(timeout=30)

    assert answer == {"orderId": "7", "status": "placed"}
    assert thanks == "Thank you: order 7 is placed."
    assert code == 0


def place_order(address: str, order_id: str) -> object:
    """Send what the README's curl sends."""
    request = urllib.request.Request(
        f"{address}/shop.orders.v1.Orders/PlaceOrder",
        data=json.dumps({"orderId": order_id}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Return what the pattern catches in the next line that matches; the test's own timeout bounds the wait."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"The app ended before it printed {pattern!r}.")
