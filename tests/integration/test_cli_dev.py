"""`linkspan dev` as people use it: files are saved, mistakes are made, a debugger holds the process."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Self

import pytest

from tests.integration.command_line import ROOT, until

if TYPE_CHECKING:
    from pathlib import Path

SHOP = """
from linkspan import App, Context, Contract, Event, Limits, Message, Service, ServiceContract, command, field, query

contract = Contract("dev.v1")


class Place(Message):
    order_id: str = field(1, key=True)


class Get(Message):
    order_id: str = field(1)


class Order(Message):
    order_id: str = field(1)
    said: str = field(2)


class Placed(Event):
    order_id: str = field(1, key=True)


class Orders(ServiceContract):
    place = command(Place, Order)
    get = query(Get, Order)


orders = Service("orders", Orders)
mail = Service("mail", limits=Limits(inline=1, parked=(), timeout=2.0))


@orders.handles(Orders.place)
async def place(ctx: Context, request: Place) -> Order:
    {in_call}
    await ctx.publish(Placed(order_id=request.order_id))
    return Order(order_id=request.order_id, said="first")


@orders.handles(Orders.get)
async def get(ctx: Context, request: Get) -> Order:
    return Order(order_id=request.order_id)


@mail.on(Placed)
async def thank(ctx: Context, event: Placed) -> None:
    left = ctx.time_left
    {in_event}
    await ctx.call(Orders.get, Get(order_id=event.order_id), timeout=1.0)
    print(f"Thanked for {{event.order_id}}, attempt {{ctx.attempt}}, {{left - ctx.time_left:.1f}} s")


app = App(orders, mail)
"""


class Dev:
    """`linkspan dev` on a terminal of its own."""

    def __init__(self, folder: Path, *, in_call: str = "pass", in_event: str = "pass") -> None:
        self.folder = folder
        self.module = folder / "shop.py"
        self.module.write_text(SHOP.format(in_call=in_call, in_event=in_event))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LINKSPAN_")}
        self.environment = {**clean, "LINKSPAN_HTTP": "127.0.0.1:0", "PYTHONPATH": str(ROOT / "src"), "TERM": "dumb"}
        self.said = ""
        self.terminal, theirs = pty.openpty()
        os.set_blocking(self.terminal, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "linkspan.cli", "dev"],
            cwd=folder,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.terminal)

    def hears(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until a pattern was said so often; return the last."""

        def heard() -> bool:
            try:
                while part := os.read(self.terminal, 65536):
                    self.said += part.decode(errors="replace").replace("\r\n", "\n")
            except OSError:  # nothing more for now, or its end
                pass
            return len(re.findall(pattern, self.said)) >= times

        try:
            until(heard, pattern)
        except AssertionError:
            print(self.said)
            raise
        return list(re.finditer(pattern, self.said))[times - 1]

    def types(self, line: str) -> None:
        os.write(self.terminal, f"{line}\n".encode())

    def save(self, old: str, new: str) -> None:
        self.module.write_text(self.module.read_text().replace(old, new))

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "linkspan.cli", "call", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=40, check=False)

    def calling(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "linkspan.cli", "call", *words]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def worker(self) -> int:
        found: int = json.loads((self.folder / ".linkspan" / "dev.json").read_text())["pid"]
        return found

    def ends(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0


def post(address: str, milliseconds: str) -> int:
    """Call as a program that sends its deadline does."""
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"content-type": "application/json", "connect-timeout-ms": milliseconds}
    with closing(connection):
        connection.request("POST", "/dev.v1.Orders/Place", '{"orderId": "7"}', headers)
        return connection.getresponse().status


def test_lines_to_copy_work_and_a_saved_file_replaces_the_process(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        dev.hears("Save a file")
        curl = dev.hears(r"curl -H 'content-type: application/json' -d '(.*)' (http://\S+/dev.v1.Orders/Place)\n")
        assert re.search(r"linkspan\S* call place '\{\"orderId\": \"7\"\}'\n", dev.said)
        assert "nats --context linkspan stream ls" in dev.said
        assert curl[1] == '{"orderId": "7"}'
        assert json.loads(dev.call("place", '{"orderId": "7"}').stdout) == {"orderId": "7", "said": "first"}
        first = dev.worker

        dev.save('said="first"', 'said="second"')

        dev.hears(r"Ready: orders, mail at \S+ \(shop.py was saved, ")
        assert json.loads(dev.call("place", '{"orderId": "8"}').stdout)["said"] == "second"
        assert dev.worker != first
        dev.hears("Thanked for 8, attempt 1")
        dev.ends()
    assert dev.said.count("Thanked for 7") == 1


def test_file_that_cannot_be_parsed_is_shown_and_the_old_process_goes_on(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        dev.hears("Save a file")
        address = dev.hears(r"Ready: orders, mail at http://(\S+) ")[1]
        first = dev.worker

        dev.save("app = App(", "app = = App(")

        dev.hears("SyntaxError: invalid syntax")
        dev.hears("mend it and save again")
        assert post(address, "1500") == 200
        assert dev.worker == first
        dev.save("app = = App(", "app =  App(")
        dev.hears("shop.py was saved")
        dev.ends()


def test_module_that_fails_waits_for_the_next_save_and_loses_nothing(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        dev.hears("Save a file")
        dev.save("\napp = App(", "\nraise RuntimeError('not yet')\napp = App(")
        dev.hears("RuntimeError: not yet")
        dev.hears(r"The process has ended \(exit code 1\); it starts anew when a file is saved")
        assert "importlib" not in dev.said
        assert "linkspan/cli/worker.py" not in dev.said

        dev.save("\nraise RuntimeError('not yet')", "")

        dev.hears("shop.py was saved")
        assert dev.call("place", '{"orderId": "7"}').returncode == 0
        dev.hears("Thanked for 7, attempt 1")
        dev.ends()


def test_debugger_holds_an_event_and_no_deadline_passes(tmp_path: Path) -> None:
    """Its handler has two seconds, and is held for more than three; without rest it would be ended and tried again."""
    with Dev(tmp_path, in_event="breakpoint()") as dev:
        dev.hears("Save a file")
        assert dev.call("place", '{"orderId": "7"}').returncode == 0
        dev.hears(r"\(Pdb\)")
        held = time.monotonic()
        dev.types("event.order_id")
        dev.hears("'7'")
        until(lambda: time.monotonic() - held > 3.5, "it is held longer than its handler may take")
        dev.types("continue")

        said = dev.hears(r"Thanked for 7, attempt 1, ([0-9.]+) s")
        assert float(said[1]) < 2.0
        dev.hears("The event loop was held; deadlines have rested meanwhile")
        assert len(re.findall(r"-> ", dev.said)) == 1
        dev.ends()


def test_stopped_process_keeps_the_deadline_of_a_call(tmp_path: Path) -> None:
    with Dev(tmp_path, in_call="__import__('pathlib').Path('in').touch(); await __import__('asyncio').sleep(0.5)") as dev:
        address = dev.hears(r"Ready: orders, mail at http://(\S+) ")[1]
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(post, address, "1500")
            until((tmp_path / "in").exists, "the call is under way")
            worker = dev.worker
            os.kill(worker, signal.SIGSTOP)
            held = time.monotonic()
            until(lambda: time.monotonic() - held > 3, "it is stopped for longer than the call may take")
            os.kill(worker, signal.SIGCONT)

            assert answer.result(30) == 200
        dev.ends()


def test_save_while_the_debugger_holds_waits_for_it(tmp_path: Path) -> None:
    with Dev(tmp_path, in_call="breakpoint()") as dev:
        dev.hears("Save a file")
        call = dev.calling("place", '{"orderId": "7"}')
        dev.hears(r"\(Pdb\)")

        dev.save('said="first"', 'said="second"')

        dev.hears("The process is held, perhaps at a breakpoint")
        dev.types("continue")
        answer, _ = call.communicate(timeout=30)
        assert json.loads(answer)["said"] == "first"
        dev.hears("shop.py was saved")
        dev.ends()


def test_second_signal_ends_a_held_process_at_once(tmp_path: Path) -> None:
    with Dev(tmp_path, in_call="breakpoint()") as dev:
        dev.hears("Save a file")
        call = dev.calling("place", '{"orderId": "7"}')
        dev.hears(r"\(Pdb\)")
        dev.process.send_signal(signal.SIGINT)
        dev.hears("A second Ctrl-C ends it at once")
        dev.process.send_signal(signal.SIGINT)

        assert dev.process.wait(30) == 0
        call.communicate(timeout=30)


def test_killed_parent_takes_its_worker_along(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        dev.hears("Save a file")
        worker = dev.worker
        dev.process.kill()
        dev.process.wait()

        until(lambda: not alive(worker), "the worker has drained and gone")
        assert not (tmp_path / ".linkspan" / "dev.json").exists()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("words", "sentence"), [(("nowhere:app",), "no module 'nowhere'"), ((), "There is no App in the modules")])
def test_wrong_target_ends_with_a_sentence(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "linkspan.cli", "dev", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
