"""The embedded server lives exactly as long as somebody uses it, keeps its data, and talks to nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import pytest

from linkspan.brokers.embedded import EmbeddedServer, embedded_nats
from linkspan.brokers.watchdog import read_greeting
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.aio.client import Client

OWNER = """
import asyncio, sys
from pathlib import Path
from linkspan.brokers.embedded import embedded_nats

async def own():
    async with embedded_nats(Path(sys.argv[1])) as server:
        print(server.name, server.pid, server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(own())
"""


@contextlib.asynccontextmanager
async def connected(server: EmbeddedServer) -> AsyncIterator[Client]:
    client = await nats.connect(server.url, user=server.user, password=server.password, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    try:
        yield client
    finally:
        await client.close()


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 # other processes set no asyncio.Event
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(pid: int) -> list[tuple[str, int]]:
    """Return the TCP addresses a process listens on, from the tables of the kernel."""
    inodes = {str(entry.readlink())[8:-1] for entry in Path(f"/proc/{pid}/fd").iterdir() if str(entry.readlink()).startswith("socket:")}
    found: list[tuple[str, int]] = []
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address, int(port, 16)))
    return found


def seen_of(pid: int) -> bytes:
    """Return what the process table shows of a process: arguments and environment."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


def state_of(directory: Path) -> dict[str, str | int]:
    state: dict[str, str | int] = json.loads((directory / "run" / "state.json").read_text())
    return state


def watchdog_of(directory: Path) -> int:
    return int(state_of(directory)["watchdog"])


class OwnerProcess:
    """Another process that uses the directory until it is told to leave, or killed."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def joined(self) -> tuple[str, int, str]:
        assert self.process.stdout is not None
        name, pid, url = (await asyncio.to_thread(self.process.stdout.readline)).split()
        return name, int(pid), url

    async def leave(self) -> None:
        await asyncio.to_thread(self.process.communicate, "")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


async def test_server_accepts_connections_soon_after_start(tmp_path: Path) -> None:
    begun = time.perf_counter()
    async with embedded_nats(tmp_path) as server, connected(server) as client:
        assert client.is_connected
        assert time.perf_counter() - begun < 2.0  # 0.1 s on an idle machine
        assert (await client.jetstream().account_info()).api.errors == 0


async def test_server_is_reached_on_loopback_by_its_credential_only(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server:
        port = int(server.url.removeprefix("nats://127.0.0.1:"))
        assert listening(server.pid) == [("127.0.0.1", port)]
        assert listening(watchdog_of(tmp_path)) == []
        for wrong in ({}, {"user": server.user, "pass": "guess"}, {"user": "", "pass": ""}):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"CONNECT %s\r\nPING\r\n" % json.dumps(wrong | {"verbose": False}).encode())
            assert b"-ERR 'Authorization Violation'" in await reader.read()
            writer.close()


async def test_two_directories_have_different_ports_names_and_passwords(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path / "a") as a, embedded_nats(tmp_path / "b") as b:
        assert len({a.url, b.url, a.name, b.name, a.password, b.password}) == 6
        assert min(len(a.password), len(b.password)) >= 32


async def test_password_is_in_no_command_line_and_no_environment(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server:
        for pid in (server.pid, watchdog_of(tmp_path), os.getpid()):
            assert server.password.encode() not in seen_of(pid)
        assert server.password not in (tmp_path / "run" / "server.log").read_text()
        assert server.password not in json.dumps(state_of(tmp_path))


async def test_files_are_private_and_secrets_are_removed_at_the_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with embedded_nats(tmp_path) as server:
        assert run.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o077 for path in run.iterdir() if path.is_file()}
        assert set(modes.values()) == {0}
        assert {"nats.conf", "state.json", "server.log"} <= set(modes)
        assert server.context_file.stat().st_mode & 0o777 == 0o600
        context = json.loads(server.context_file.read_text())
        assert (context["url"], context["user"], context["password"]) == (server.url, server.user, server.password)
    left = [path for path in run.rglob("*") if path.is_file() and server.password in path.read_text()]
    assert left == []
    assert not (run / "state.json").exists()


async def test_running_configuration_means_sync_always(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path / "nats") as server:
        assert server.sync == "always"
        written = (tmp_path / "nats" / "run" / "nats.conf").read_text()
        binary = (Path("/proc") / str(server.pid) / "exe").readlink()
    port = server.url.rpartition(":")[2]
    twin = tmp_path / "twin.conf"  # the same settings beside it, with the monitoring that the embedded server does not open
    ports = tmp_path / "ports"
    ports.mkdir()
    twin.write_text(
        written.replace(f"port: {port}", "port: -1").replace(str(tmp_path / "nats"), str(tmp_path / "twin")) + 'http: "127.0.0.1:-1"\n'
    )
    process = await asyncio.create_subprocess_exec(binary, "-c", twin, "--ports_file_dir", ports, stderr=subprocess.DEVNULL)
    try:
        await until(lambda: any(file.read_text().endswith("}") for file in ports.iterdir()))
        [monitor] = json.loads(next(ports.iterdir()).read_text())["monitoring"]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(monitor.rpartition(":")[2]))
        writer.write(b"GET /varz HTTP/1.0\r\n\r\n")
        varz = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
    finally:
        process.terminate()
        await process.wait()
    assert varz["jetstream"]["config"]["sync_always"] is True
    assert varz["max_payload"] == server.max_payload


async def test_streams_and_messages_survive_a_stop(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server, connected(server) as client:
        js = client.jetstream()
        await js.add_stream(name="orders", subjects=["orders.>"])
        for number in range(20):
            await js.publish("orders.placed", str(number).encode())
    assert not alive(server.pid)
    async with embedded_nats(tmp_path) as again, connected(again) as client:
        assert again.name != server.name
        assert (await client.jetstream().stream_info("orders")).state.messages == 20
        assert (await client.jetstream().get_msg("orders", 20)).data == b"19"


async def test_second_owner_joins_and_last_one_stops_the_server(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as first:
        async with embedded_nats(tmp_path) as second:
            assert second == first
        assert alive(first.pid)
        watchdog = watchdog_of(tmp_path)
    assert not alive(first.pid)
    await until(lambda: not alive(watchdog))


async def test_processes_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    owners = [OwnerProcess(tmp_path) for _ in range(5)]
    try:
        servers = {await owner.joined() for owner in owners}
        assert len(servers) == 1
        [(_, pid, _)] = servers
        for owner in owners[1:]:
            await owner.leave()
        assert alive(pid)
        await owners[0].leave()
        assert not alive(pid)
    finally:
        for owner in owners:
            owner.kill()


async def test_server_ends_when_all_owners_are_killed(tmp_path: Path) -> None:
    owners = [OwnerProcess(tmp_path) for _ in range(2)]
    servers = [await owner.joined() for owner in owners]
    watchdog = watchdog_of(tmp_path)
    for owner in owners:
        owner.kill()
    await until(lambda: not alive(servers[0][1]) and not alive(watchdog))
    assert not (tmp_path / "run" / "state.json").exists()


async def test_owner_killed_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    for seconds in (0.0, 0.15, 0.2, 0.25, 0.3):
        owner = OwnerProcess(tmp_path)
        await asyncio.sleep(seconds)  # somewhere between fork and ready
        owner.kill()
    async with embedded_nats(tmp_path) as server, connected(server) as client:
        assert (await client.jetstream().account_info()).streams == 0
    await until(lambda: not processes_of(tmp_path))


def processes_of(directory: Path) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(directory).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


async def test_killed_server_comes_back_on_the_same_port_with_its_messages(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server, connected(server) as client:
        js = client.jetstream()
        await js.add_stream(name="orders", subjects=["orders.>"])
        for round_ in range(1, 4):
            await js.publish("orders.placed", b"x")
            os.kill(int(state_of(tmp_path)["server"]), signal.SIGKILL)
            await until(lambda: not client.is_connected)
            await until(lambda: client.is_connected)
            async with asyncio.timeout(10):
                assert (await js.stream_info("orders")).state.messages == round_
        assert int(state_of(tmp_path)["server"]) != server.pid
        assert client.connected_url is not None
        assert client.connected_url.port == int(server.url.rpartition(":")[2])


async def test_sigterm_to_everything_but_the_owner_leaves_it_a_server_to_drain_with(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server, connected(server) as client:
        watchdog = watchdog_of(tmp_path)
        for pid in (watchdog, server.pid):
            os.kill(pid, signal.SIGTERM)
        await until(lambda: not alive(server.pid))
        await until(lambda: client.is_connected)
        assert (await client.request("$JS.API.INFO", timeout=10)).data
        assert watchdog_of(tmp_path) == watchdog
    await until(lambda: not alive(watchdog))


async def test_link_in_place_of_the_private_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="is a link: remove it"):
        async with embedded_nats(tmp_path / "nats"):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_port_of_a_killed_server_is_kept_from_others(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        watchdog = watchdog_of(tmp_path)
        os.kill(watchdog, signal.SIGSTOP)  # so that it cannot restart the server at once
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(OSError, match="in use"), socket.socket() as thief:
            thief.bind(("127.0.0.1", port))
        os.kill(watchdog, signal.SIGCONT)
        await until(lambda: (read_greeting(port, 1.0) or {}).get("server_name") == server.name)


async def test_killed_watchdog_takes_the_server_along_and_owners_bring_both_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_nats(tmp_path) as server, embedded_nats(tmp_path) as other, connected(server) as client:
        js = client.jetstream()
        await js.add_stream(name="orders", subjects=["orders.>"])
        await js.publish("orders.placed", b"x")
        os.kill(watchdog_of(tmp_path), signal.SIGKILL)
        await until(lambda: not alive(server.pid))
        await until(lambda: (read_greeting(int(server.url.rpartition(":")[2]), 1.0) or {}).get("server_name") == server.name)
        await until(lambda: client.is_connected)
        async with asyncio.timeout(10):
            assert (await js.stream_info("orders")).state.messages == 1
        async with embedded_nats(tmp_path) as late:
            assert (late.url, late.user, late.password) == (other.url, other.user, other.password)
        pid = int(state_of(tmp_path)["server"])
    assert not alive(pid)
    assert "embedded server lost its watchdog; starting it again" in caplog.text


async def test_directory_starts_anew_after_everything_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    owner = OwnerProcess(tmp_path)
    name, pid, _ = await owner.joined()
    os.kill(watchdog_of(tmp_path), signal.SIGSTOP)  # it must not tidy up
    owner.kill()
    os.kill(watchdog_of(tmp_path), signal.SIGKILL)
    await until(lambda: not alive(pid))
    assert (tmp_path / "run" / "state.json").exists()
    with caplog.at_level(logging.WARNING, "linkspan.embedded"):
        async with embedded_nats(tmp_path) as server, connected(server) as client:
            assert server.name != name
            assert client.is_connected
    assert "stale state of an embedded server ignored" in caplog.text


async def test_foreign_server_on_the_remembered_port_is_never_spoken_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    visits: list[bytes] = []

    async def foreign(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_name":"linkspan-old","version":"2.15.1"}\r\n')
        visits.append(await reader.read(1000))
        writer.close()

    listener = await asyncio.start_server(foreign, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    stale = {"instance": "linkspan-old", "watchdog": os.getpid(), "server": os.getpid(), "port": port, "socket": str(run / "watchdog.sock")}
    (run / "state.json").write_text(json.dumps(stale))
    async with embedded_nats(tmp_path) as server, connected(server):
        assert server.url != f"nats://127.0.0.1:{port}"
    listener.close()
    assert visits == []
    assert "stale state of an embedded server ignored" in caplog.text


async def test_watchdog_socket_in_an_open_directory_is_not_believed(tmp_path: Path) -> None:
    place = tmp_path / "linkspan-open"
    place.mkdir()
    place.chmod(0o755)
    visits = 0

    async def foreign(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.close()

    listener = await asyncio.start_unix_server(foreign, place / "watchdog.sock")
    (tmp_path / "nats" / "run").mkdir(parents=True, mode=0o700)
    stale = {"instance": "i", "watchdog": 1, "server": 1, "port": 1, "socket": str(place / "watchdog.sock")}
    (tmp_path / "nats" / "run" / "state.json").write_text(json.dumps(stale))
    async with embedded_nats(tmp_path / "nats") as server:
        assert server.name != "i"
    listener.close()
    assert visits == 0


@pytest.mark.parametrize("text", ["", '{"instance": "linksp', "\x00\x00\x00", "[]"])
async def test_half_written_state_file_is_replaced(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "state.json").write_text(text)
    async with embedded_nats(tmp_path) as server:
        assert state_of(tmp_path)["instance"] == server.name
    assert "stale state of an embedded server ignored" in caplog.text


async def test_very_long_directory_with_odd_characters_works(tmp_path: Path) -> None:
    directory = tmp_path / 'with "quotes", $PATH and späce' / ("d" * 100)
    async with embedded_nats(directory) as server, embedded_nats(directory) as joined, connected(server):
        assert joined == server
        place = Path(str(state_of(directory)["socket"]))
        assert len(str(place)) < 100
        assert place.parent.stat().st_mode & 0o777 == 0o700
    assert (directory / "jetstream").is_dir()
    assert not place.parent.exists()


async def test_other_settings_than_the_running_ones_are_refused(tmp_path: Path) -> None:
    async with embedded_nats(tmp_path, sync="10s") as server:
        assert server.sync == "10s"
        with pytest.raises(SetupError, match="runs with sync_interval '10s'"):
            async with embedded_nats(tmp_path):
                pass
        assert alive(server.pid)


async def test_unusable_directory_missing_binary_and_old_server_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    old, broken = tmp_path / "old", tmp_path / "broken"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.14.5'\n")
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "nats-server: v2.15.1"\n')
    old.chmod(0o755)
    broken.chmod(0o755)
    for directory, binary, sentence in (
        (tmp_path / "file", None, "cannot use .*: give a directory"),
        (tmp_path / "file" / "below", None, "cannot use .*: give a directory"),
        (tmp_path / "a", tmp_path / "missing", "cannot be run at .*: install"),
        (tmp_path / "b", old, r"is 'nats-server: v2.14.5', older than 2.15: install"),
        (tmp_path / "c", broken, r"did not start in .*: read"),
    ):
        with pytest.raises(SetupError, match=sentence):
            async with embedded_nats(directory, binary=binary):
                pass
    await until(lambda: not processes_of(tmp_path))


async def test_start_that_is_cancelled_leaves_no_server(tmp_path: Path) -> None:
    async def use() -> None:
        async with embedded_nats(tmp_path):
            await asyncio.Event().wait()

    for seconds in (0.0, 0.03, 0.06, 0.3):
        task = asyncio.create_task(use())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not processes_of(tmp_path))


async def test_event_loop_goes_on_while_the_server_starts(tmp_path: Path) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    task = asyncio.create_task(turn())
    async with embedded_nats(tmp_path):
        assert turns >= 10  # of the 60 or more that fit into a start
    task.cancel()
