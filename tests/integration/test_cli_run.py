"""`linkspan run` as people and orchestrators use it: real processes, embedded NATS, SQLite, signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.command_line import Folder, Running, until

BAR = 2.0
"""Seconds from the command to the line that says Ready."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def placed(folder: Folder) -> list[str]:
    return [order_id for (order_id,) in folder.query("orders", "select order_id from placed order by rowid")]


def thanked(folder: Folder) -> list[str]:
    return [order_id for (order_id,) in folder.query("mail", "select order_id from thanks order by rowid")]


# --- start and work ---


def test_app_is_ready_in_time_and_answers(folder: Folder) -> None:
    """The fastest of three starts counts; where other programs keep the machine busy, the CPU seconds of the whole run do."""
    seconds: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    while len(seconds) < 3 and (not seconds or min(seconds) > BAR):
        with Running(folder) as run:
            seconds.append(run.seconds)
            answer = run.place("7", note="for Ada")
            assert run.stop() == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(seconds)
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)

    print(
        f"ready after {', '.join(f'{each:.2f}' for each in seconds)} s; {cpu:.2f} s of CPU a run{'; the machine is busy' if busy else ''}"
    )
    assert answer == (200, {"orderId": "7"})
    assert min(cpu if busy else min(seconds), *seconds) <= BAR


def test_two_processes_of_one_app_share_the_broker_and_work_together(folder: Folder) -> None:
    with Running(folder, "--only", "orders", name="orders") as orders:
        (server,) = folder.servers
        known = f"orders={orders.address}"
        with Running(folder, "--only", "mail", name="mail", LINKSPAN_ADDRESSES=known) as mail:
            assert mail.address == ""
            assert orders.place("7") == (200, {"orderId": "7"})
            until(lambda: thanked(folder) == ["7"], "mail, which asks orders by its address, has thanked")
            assert orders.stop() == 0
            assert folder.servers == [server]
            assert mail.stop() == 0
            until(lambda: folder.servers == [], "the embedded server is gone with its last owner")


def test_second_process_on_the_same_database_is_refused(folder: Folder) -> None:
    with Running(folder) as run:
        second = folder.command("run", "cli_orders:app")
        assert run.place("7")[0] == 200

    assert second.returncode == 2
    assert "use PostgreSQL" in the_sentence(second)


def test_killed_first_owner_leaves_the_broker_to_the_second(folder: Folder) -> None:
    with Running(folder, "--only", "orders", name="orders") as orders:
        server = folder.servers
        with Running(folder, "--only", "mail", name="mail", LINKSPAN_ADDRESSES=f"*={orders.address}") as mail:
            orders.kill()
            with Running(folder, "--only", "orders", name="again", LINKSPAN_HTTP=orders.address.removeprefix("http://")) as again:
                assert again.place("7")[0] == 200
                until(lambda: thanked(folder) == ["7"], "mail has thanked")
                assert folder.servers == server
                assert mail.stop() == again.stop() == 0


# --- stop ---


def test_sigterm_under_load_finishes_what_was_begun_and_loses_nothing(folder: Folder) -> None:
    """Calls in flight are answered, calls that they make to their own process included; nothing runs twice after the restart."""
    with Running(folder, "--log", "json") as run, ThreadPoolExecutor(40) as threads:
        quick = list(threads.map(lambda number: run.place(f"quick-{number}", pause=20)[0], range(100)))
        slow = [threads.submit(run.place, f"slow-{number}", pause=500) for number in range(20)]
        until(lambda: sum(line.startswith("place slow") for line in folder.runs) == 20, "the slow calls are in flight")
        assert run.stop() == 0
        answers = [future.result() for future in slow]
    log = [json.loads(line) for line in run.err.read_text().splitlines()]

    assert set(quick) == {200}
    assert answers == [(200, {"orderId": f"slow-{number}"}) for number in range(20)]
    assert [line["text"] for line in log if line["level"] not in {"debug", "info"}] == []
    assert folder.query("orders", "select count(*) from linkspan_outbox") == [(0,)]
    until(lambda: folder.servers == [], "the embedded server is gone")

    begun = [line for line in folder.runs if line.startswith("thank")]
    assert sorted(thanked(folder)) == sorted(line.split()[1] for line in begun)
    with Running(folder) as run:
        until(lambda: len(thanked(folder)) == 120, "what was not begun is handled by the next process")
        assert run.stop() == 0
    assert sorted(thanked(folder)) == sorted(placed(folder)) == sorted(set(placed(folder)))
    assert len(folder.runs) == len(set(folder.runs)) == 240


def test_sigkill_loses_nothing_and_repeats_no_effect(folder: Folder) -> None:
    with Running(folder) as run, ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(run.place, f"order-{number}", pause=10) for number in range(200)]
        until(lambda: len(folder.runs) > 150, "much is under way")
        run.kill()
        accepted = [number for number, future in enumerate(answers) if future.exception() is None and future.result()[0] == 200]
    until(lambda: folder.servers == [], "the watchdog has ended the server of the killed process")

    with Running(folder) as run:
        until(lambda: len(thanked(folder)) >= len(placed(folder)), "everything placed is thanked")
        assert run.stop() == 0
    assert {f"order-{number}" for number in accepted} <= set(placed(folder))
    assert sorted(thanked(folder)) == sorted(placed(folder))
    assert len(set(thanked(folder))) == len(thanked(folder))


def test_sigint_ends_as_sigterm_does(folder: Folder) -> None:
    with Running(folder) as run:
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) == 0


def test_second_signal_ends_it_at_once(folder: Folder) -> None:
    with Running(folder) as run, ThreadPoolExecutor(1) as threads:
        call = threads.submit(run.place, "slow", pause=15_000)
        until(lambda: folder.runs == ["place slow 1"], "the call is in flight")
        run.process.send_signal(signal.SIGTERM)
        until(lambda: "Draining." in run.err.read_text(), "it drains")
        asked = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        code = run.process.wait(30)
        assert time.monotonic() - asked < 8
        assert call.exception() is not None or call.result()[0] != 200

    assert code == 0
    assert "Ended without draining" in run.err.read_text()
    assert placed(folder) == []


def test_signal_while_starting_ends_it(folder: Folder) -> None:
    """Here the broker accepts connections and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        argv = [sys.executable, "-m", "linkspan.cli", "run", "cli_orders:app"]
        environment = folder.environment(LINKSPAN_BROKER=url)
        with subprocess.Popen(argv, cwd=folder.path, env=environment, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(30)
            connection, _ = silent.accept()
            process.terminate()
            _, errors = process.communicate(timeout=10)
            connection.close()

    assert process.returncode == 0
    assert "Traceback" not in errors


# --- mistakes ---


def the_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a refused command says."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("linkspan: ")
    assert done.stdout == ""
    return line


MISTAKES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "no attribute": (["cli_orders"], {}, "module:attribute"),
    "wrong module": (["nowhere:app"], {}, "no module 'nowhere'"),
    "wrong attribute": (["cli_orders:nothing"], {}, "'cli_orders:nothing' is not an App"),
    "unknown service": (["cli_orders:app", "--only", "billing"], {}, "no service 'billing' in this app: name one of orders, mail"),
    "log form": (["cli_orders:app", "--log", "xml"], {}, "log form 'xml' is unknown"),
    "log level": (["cli_orders:app", "--level", "loud"], {}, "log level 'loud' is unknown"),
    "http without port": (["cli_orders:app"], {"LINKSPAN_HTTP": "localhost"}, "'localhost' (LINKSPAN_HTTP)"),
    "http port too high": (["cli_orders:app"], {"LINKSPAN_HTTP": "127.0.0.1:99999"}, "(LINKSPAN_HTTP)"),
    "http host unknown": (["cli_orders:app"], {"LINKSPAN_HTTP": "no.such.invalid:0"}, "no.such.invalid:0"),
    "addresses": (["cli_orders:app"], {"LINKSPAN_ADDRESSES": "orders"}, "LINKSPAN_ADDRESSES has 'orders'"),
    "address without host": (["cli_orders:app"], {"LINKSPAN_ADDRESSES": "orders=http://"}, "cannot be called"),
    "broker scheme": (["cli_orders:app"], {"LINKSPAN_BROKER": "carrier://pigeon"}, "broker scheme 'carrier'"),
    "broker port": (["cli_orders:app"], {"LINKSPAN_BROKER": "nats://ada:secret@127.0.0.1:many"}, "(LINKSPAN_BROKER) cannot be read"),
    "store scheme": (["cli_orders:app"], {"LINKSPAN_STORE": "oracle://{service}"}, "The store 'oracle://' is not known"),
    "store shared": (["cli_orders:app"], {"LINKSPAN_STORE": "sqlite:///all.db"}, "would share a store: put {service} into it"),
    "data is a file": (["cli_orders:app"], {"LINKSPAN_DATA": "cli_orders.py"}, "cli_orders.py"),
}


@pytest.mark.parametrize(("arguments", "settings", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_ends_with_one_sentence(folder: Folder, arguments: list[str], settings: dict[str, str], words: str) -> None:
    done = folder.command("run", *arguments, **settings)

    assert words in the_sentence(done)
    assert done.returncode == 2


def test_port_in_use_ends_with_one_sentence(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = f"127.0.0.1:{taken.getsockname()[1]}"
        done = folder.command("run", "cli_orders:app", LINKSPAN_HTTP=http)

    assert f"Listening on '{http}' failed" in the_sentence(done)
    assert done.returncode == 2
    until(lambda: folder.servers == [], "what was opened before is closed")


def test_broker_that_is_away_is_an_error_at_run_time(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"nats://ada:secret-word@127.0.0.1:{taken.getsockname()[1]}"
    done = folder.command("run", "cli_orders:app", LINKSPAN_BROKER=url)

    assert "unavailable" in done.stderr.splitlines()[-1]
    assert "secret-word" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


# --- logs ---


def test_json_logs_parse_and_hold_no_personal_data(folder: Folder) -> None:
    """The canary is in requests, events, error texts of handlers, undecodable bodies and headers; it may reach databases only."""
    canary = "CANARY-4711"
    with Running(folder, "--log", "json", "--level", "debug") as run:
        assert run.place("fine", note=canary)[0] == 200
        assert run.place("bad-1", note=canary)[0] == 200
        assert run.place("bug-1", note=canary)[0] == 200
        status, answer = run.place("broken", note=canary)
        assert run.call("PlaceOrder", orderId=canary, number=canary)[0] == 400
        until(lambda: len(folder.query("mail", "select 1 from linkspan_letter")) == 2, "both bad messages are held")
        words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (*folder.servers, run.process.pid)]
        assert run.stop() == 0
    log = [json.loads(line) for line in run.err.read_text().splitlines()]

    assert (status, answer["code"]) == (500, "internal")
    assert canary not in run.err.read_text() + run.out.read_text() + json.dumps(answer)
    assert not any(canary.encode() in each for each in words)
    texts = {line["text"] for line in log}
    assert {"Running.", "A handler raised.", "A message is held.", "Draining."} <= texts
    assert all({"time", "level", "logger", "text"} <= line.keys() for line in log)
    (raised,) = (line for line in log if line["text"] == "A handler raised." and line.get("operation"))
    assert raised["error"] == "RuntimeError"
    assert "cli_orders.py" in raised["stack"]
    assert raised["error_id"] in answer["message"]


def test_logs_can_be_off(folder: Folder) -> None:
    with Running(folder, "--log", "off") as run:
        assert run.place("bad-1")[0] == 200
        until(lambda: len(folder.query("mail", "select 1 from linkspan_letter")) == 1, "the message is held")
        assert run.stop() == 0

    assert run.err.read_text() == ""
