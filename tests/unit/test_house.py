"""The house rules find what they are meant to find, and nothing in good code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scripts import check_house, sum_tests
from scripts.check_house import Source

ROOT = Path(__file__).resolve().parents[2]


def sentences(rule: str, path: str, text: str) -> list[str]:
    """Run one rule over a snippet."""
    return [str(finding) for finding in getattr(check_house, rule)(Source(path, textwrap.dedent(text)))]


FAULTY = {
    "long file": ("sizes", "src/linkspan/relay.py", "x = 1\n" * 501),
    "deep module": ("sizes", "src/linkspan/brokers/nats/wire.py", ""),
    "banned module": ("names", "src/linkspan/utils.py", ""),
    "banned class": ("names", "src/linkspan/relay.py", "class OutboxManager: ..."),
    "banned function": ("names", "src/linkspan/relay.py", "def read_info(): ..."),
    "banned async method": ("names", "src/linkspan/relay.py", "class A:\n    async def load_data(self): ..."),
    "clock called": ("ambient", "src/linkspan/relay.py", "import time\nnow = time.time()"),
    "clock taken": ("ambient", "src/linkspan/relay.py", "import time\nnow = time.time"),
    "clock imported": ("ambient", "src/linkspan/relay.py", "from time import time"),
    "datetime now": ("ambient", "src/linkspan/relay.py", "import datetime\nnow = datetime.datetime.now()"),
    "uuid4": ("ambient", "src/linkspan/relay.py", "import uuid\nid = uuid.uuid4()"),
    "uuid4 imported": ("ambient", "src/linkspan/relay.py", "from uuid import uuid4"),
    "random imported": ("ambient", "src/linkspan/relay.py", "import random"),
    "random names imported": ("ambient", "src/linkspan/relay.py", "from random import choice"),
    "random inside a function": ("ambient", "src/linkspan/relay.py", "def f():\n    import random"),
    "noqa without code": ("suppressions", "tests/unit/test_x.py", "x = 1  # noqa"),
    "noqa without reason": ("suppressions", "tests/unit/test_x.py", "x = 1  # noqa: S101"),
    "noqa for a file": ("suppressions", "src/linkspan/relay.py", "# ruff: noqa"),
    "ignore without code": ("suppressions", "src/linkspan/relay.py", "x = 1  # type: ignore"),
    "ignore without code in a test": ("suppressions", "tests/unit/test_a.py", "x = 1  # type: ignore"),
    "ignore without reason": ("suppressions", "src/linkspan/relay.py", "x = 1  # type: ignore[attr-defined]"),
    "pyright without reason": ("suppressions", "src/linkspan/relay.py", "x = 1  # pyright: ignore[reportPrivateUsage]"),
    "pyright switched down": ("suppressions", "src/linkspan/relay.py", "# pyright: basic"),
    "registry": ("places", "requirements.txt", "--index-url https://example.org/simple"),
    "registry host": ("places", "constraints.txt", "https://files.pythonhosted.org/packages/a.whl"),
    "machine path": ("places", "docs/how-to/run.md", "cd /home/ada/linkspan"),
    "folder beside": ("places", "Makefile", "ORDERS := ../shared/data/orders.csv"),
}


@pytest.mark.parametrize(("rule", "path", "text"), FAULTY.values(), ids=FAULTY.keys())
def test_rule_finds_fault(rule: str, path: str, text: str) -> None:
    assert sentences(rule, path, text)


GOOD = {
    "500 lines": ("sizes", "src/linkspan/relay.py", "x = 1\n" * 500),
    "tests may be long": ("sizes", "tests/unit/test_relay.py", "x = 1\n" * 501),
    "two levels": ("sizes", "src/linkspan/brokers/nats.py", ""),
    "word inside a word": ("names", "src/linkspan/database.py", "def informed(): ...\nclass Baseline: ..."),
    "name chosen by asyncio": ("names", "src/linkspan/wire.py", "class P:\n    def data_received(self, data): ..."),
    "payload of a delivery": ("names", "src/linkspan/wire.py", "class D:\n    @property\n    def data(self): ..."),
    "seeded clock of tests": ("ambient", "src/linkspan/testing/clock.py", "import random"),
    "attribute named data": ("names", "src/linkspan/wire.py", "data = b''"),
    "runtime asks the machine": ("ambient", "src/linkspan/runtime.py", "import random, time\nnow = time.time()"),
    "random for checkers only": ("ambient", "src/linkspan/ports.py", "if TYPE_CHECKING:\n    import random\nx: 'random.Random'"),
    "injected random": ("ambient", "src/linkspan/retry.py", "def f(runtime): return runtime.random.uniform(0, runtime.clock.now())"),
    "tests may take chances": ("ambient", "tests/unit/test_x.py", "import random"),
    "noqa with reason": ("suppressions", "src/linkspan/a.py", "x = 1  # noqa: S608 - the table is a constant"),
    "ignore with reason": ("suppressions", "src/linkspan/a.py", "x = 1  # type: ignore[misc]  # the checker cannot see slots"),
    "wrong type in a test": ("suppressions", "tests/unit/test_a.py", "f(5)  # type: ignore[arg-type]"),
    "noqa in a string": ("suppressions", "src/linkspan/a.py", "x = '# noqa'"),
    "system path": ("places", "docs/a.md", "Look into /etc/ssl/certs and https://example.org/home/x"),
    "ci knows the folder beside": ("places", ".ci/run", "orders=../shared/data/orders.csv"),
}


@pytest.mark.parametrize(("rule", "path", "text"), GOOD.values(), ids=GOOD.keys())
def test_rule_passes_good_code(rule: str, path: str, text: str) -> None:
    assert sentences(rule, path, text) == []


UNHOOKED = {
    "commit as text": ("stores/sqlite.py", "def f(self): self.connection.execute('COMMIT')"),
    "commit with more": ("stores/sqlite.py", "def f(self): self._execute('  commit transaction')"),
    "commit as constant": ("stores/sqlite_writer.py", "def f(self): execute(_COMMIT)"),
    "commit as constant, by a method of ours": ("stores/sqlite_writer.py", "def f(self): self._ours(_COMMIT)"),
    "commit by driver": ("stores/postgres.py", "def f(self): self._connection.commit()"),
    "publish": ("outbox.py", "async def f(self): await self._broker.publish(message)"),
    "batch": ("client.py", "async def f(broker): await broker.publish_batch(messages)"),
    "memory publish": ("brokers/memory.py", "def publish(self): self._store(topic, message)"),
    "memory ack": ("brokers/memory.py", "def f(group): group.settle(index)"),
    "nats ack": ("brokers/nats_consumer.py", "def ack(self, reply): self.link.ack(reply)"),
    "nats ack by its client": ("brokers/nats_consumer.py", "async def f(msg): await msg.ack()"),
    "nats publish": ("brokers/nats.py", "def publish(self): self._send(message, headers, future)"),
    "nats publish by its client": ("brokers/nats.py", "async def f(self): await self._js.publish('s', b'')"),
    "hook only around": ("outbox.py", "def f(runtime):\n    runtime.reached('relay.publish.before')\n    def g(): broker.publish(1)"),
    "hook only inside": ("outbox.py", "def f(runtime):\n    broker.publish(1)\n    def g(): runtime.reached('relay.publish.after')"),
    "method": ("brokers/nats_consumer.py", "class A:\n    def f(self):\n        for d in self.found:\n            d.late_ack(d.reply)"),
}


@pytest.mark.parametrize(("module", "text"), UNHOOKED.values(), ids=UNHOOKED.keys())
def test_unhooked_point_is_found(module: str, text: str) -> None:
    found = sentences("hooks", f"src/linkspan/{module}", text)

    assert len(found) == 1
    assert "without runtime.reached" in found[0]


HOOKED = {
    "commit": """
        def f(self):
            self._runtime.reached("store.commit.before")
            self._connection.execute("COMMIT")
            self._runtime.reached("store.commit.after")
    """,
    "bound hook": """
        def f(self):
            self._reached("relay.publish.before")
            return self._broker.publish(message)
    """,
    "publishing is the port's verb": "async def f(ctx): await ctx.publish(event)",
    "selecting": "def f(self): self._connection.execute('SELECT committed FROM x')",
}


@pytest.mark.parametrize("module", ["outbox.py", "stores/sqlite.py", "brokers/nats.py"])
@pytest.mark.parametrize("text", HOOKED.values(), ids=HOOKED.keys())
def test_hooked_point_passes(text: str, module: str) -> None:
    assert sentences("hooks", f"src/linkspan/{module}", text) == []


@pytest.mark.parametrize("name", ["'commit'", "'store.commit'", "'Store.Commit.before'", "point", "f'{x}.commit.after'"])
def test_badly_named_point_is_found(name: str) -> None:
    assert "not a literal" in sentences("hooks", "src/linkspan/relay.py", f"def f(r, point, x): r.reached({name})")[0]


@pytest.mark.parametrize("side", ["before", "after"])
def test_point_without_twin_is_found(side: str) -> None:
    lone = Source("src/linkspan/relay.py", f"def f(r): r.reached('relay.publish.{side}')")
    other = Source("src/linkspan/incoming/inbox.py", "def f(r):\n    r.reached('inbox.claim.before')\n    r.reached('inbox.claim.after')")

    assert [finding.path for finding in check_house.pairs([lone, other])] == ["src/linkspan/relay.py"]


def test_package_has_no_unhooked_point() -> None:
    sources = [Source(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")) for file in (ROOT / "src").rglob("*.py")]

    found = [finding for source in sources for finding in check_house.hooks(source)] + list(check_house.pairs(sources))

    assert [str(finding) for finding in found] == []


def test_check_fails_with_a_finding(tmp_path: Path) -> None:
    """The program's exit code is what CI sees."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "check_house.py").write_text(Path(check_house.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", "init", "-q", tmp_path], check=True, env=environment)
    run = [sys.executable, str(tmp_path / "scripts" / "check_house.py")]

    clean = subprocess.run(run, check=False, capture_output=True, text=True, env=environment)
    (tmp_path / "a.py").write_text("x = 1  # noqa\n", encoding="utf-8")
    faulty = subprocess.run(run, check=False, capture_output=True, text=True, env=environment)

    assert (clean.returncode, faulty.returncode) == (0, 1)
    assert "a.py:1:" in faulty.stdout


def test_every_kind_of_point_is_in_the_package() -> None:
    """A pattern that matches nothing any more would guard nothing."""
    calls = [
        (file.relative_to(ROOT / "src" / "linkspan").as_posix(), call)
        for file in (ROOT / "src" / "linkspan").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
    ]
    met = {
        (point.kind, point.module) for point in check_house.POINTS if any(check_house.is_at(module, call, point) for module, call in calls)
    }

    assert met == {(point.kind, point.module) for point in check_house.POINTS}


def test_report_sums_failures_and_errors() -> None:
    report = '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="2"/><testsuite tests="3"/></testsuites>'

    assert sum_tests.sums(report) == (7, 3, 2)
