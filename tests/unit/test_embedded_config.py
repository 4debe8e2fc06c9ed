"""What the embedded server is told, and what is believed of a state file. Nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linkspan.brokers.embedded import EmbeddedServer, cli_line, embedded_nats
from linkspan.brokers.watchdog import Order, State, is_private, render_config, render_context, write_private
from linkspan.errors import SetupError

ORDER = Order("linkspan-01", "linkspan", "pass-word", 0, "/bin/nats-server", "/data", "always", 1_048_576)
STATE = State("linkspan-01", 10, 11, 4000, "/run/watchdog.sock")._asdict()


def test_config_listens_on_loopback_only_and_syncs_every_write() -> None:
    lines = [line.strip() for line in render_config(ORDER, 4000).splitlines()]
    assert 'host: "127.0.0.1"' in lines
    assert "port: 4000" in lines
    assert "sync_interval: always" in lines
    assert "max_payload: 1048576" in lines


def test_config_opens_no_second_listener() -> None:
    text = render_config(ORDER, 4000)
    for word in ("http", "websocket", "mqtt", "leafnode", "cluster", "gateway", "no_auth_user", "system_account"):
        assert word not in text


def test_config_quotes_what_comes_from_outside() -> None:
    text = render_config(ORDER._replace(store='/data/with "quotes" and\\slash', sync="10s"), 4000)
    assert r'store_dir: "/data/with \"quotes\" and\\slash"' in text
    assert 'sync_interval: "10s"' in text


def test_context_is_what_the_nats_tool_reads() -> None:
    fields = json.loads(render_context(ORDER, 4000))
    assert (fields["url"], fields["user"], fields["password"]) == ("nats://127.0.0.1:4000", "linkspan", "pass-word")


def test_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_open_directory_file_and_link_are_not_private(tmp_path: Path) -> None:
    closed, opened, link = tmp_path / "closed", tmp_path / "opened", tmp_path / "link"
    closed.mkdir(mode=0o700)
    opened.mkdir()
    opened.chmod(0o750)
    link.symlink_to(closed)
    assert is_private(closed)
    assert not any(is_private(path) for path in (opened, link, tmp_path / "missing"))


def test_state_file_is_read_back() -> None:
    assert State.parse(json.dumps(STATE))._asdict() == STATE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        json.dumps(STATE)[:40],
        "[]",
        "7",
        json.dumps(STATE | {"port": "4000"}),
        json.dumps(STATE | {"more": 1}),
        json.dumps({"port": 1}),
    ],
)
def test_half_written_or_foreign_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        State.parse(text)


def test_printed_lines_and_repr_hold_no_password() -> None:
    context = Path("/data dir/run/nats/context/linkspan.json")
    server = EmbeddedServer("nats://127.0.0.1:4000", "linkspan", "pass-word", Path("/data dir"), 11, context, "n", "2.15.1", "always", 1024)
    assert cli_line(server)[0] == "XDG_CONFIG_HOME='/data dir/run' nats --context linkspan stream ls"
    assert "pass-word" not in "".join(cli_line(server)) + repr(server)


@pytest.mark.parametrize("sync", ["", "never", "always; debug: true", "0s", "10"])
async def test_unknown_sync_interval_is_refused(sync: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="sync_interval"):
        async with embedded_nats(tmp_path / "nats", sync=sync):
            pass
    assert not (tmp_path / "nats").exists()


@pytest.mark.parametrize("size", [0, -1, 100 * 1024 * 1024])
async def test_max_payload_out_of_range_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="max_payload"):
        async with embedded_nats(tmp_path / "nats", max_payload=size):
            pass
