"""Lock and check by the command line, in a folder of their own; and beside a running service, whose store is decoded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.command_line import Folder, Running, until

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "CANARY-4711"
APP = "cli_orders:app"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def edit(folder: Folder, old: str, new: str) -> None:
    """Change the contract as a developer would, in the file."""
    file = folder.path / "cli_orders.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


RETYPED_TO = "class OrderPlaced(Event):\n    order_id: str = field(1, key=True)\n    number: str"
RETYPED = "class OrderPlaced(Event):\n    order_id: str = field(1, key=True)\n    number: int"


def test_contract_is_locked_checked_broken_and_accepted(folder: Folder) -> None:
    missing = folder.command("contracts", "check", APP)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "There is no locked version in 'contracts': run `linkspan contracts lock cli_orders:app`" in missing.stderr

    first = folder.command("contracts", "lock", APP)
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, "Locked version 1 in contracts/0001.binpb:")
    assert folder.command("contracts", "lock", "cli_orders").stdout == "Nothing has changed since version 1.\n"
    assert folder.command("contracts", "check", APP).stdout == "0 errors, 0 warnings against 1 locked version.\n"

    edit(folder, RETYPED, RETYPED_TO)
    broken = folder.command("contracts", "check", APP, FORCE_COLOR="1", CI="true")
    assert broken.returncode == 1
    assert broken.stdout.splitlines()[0] == "cli_orders.py:30: error FIELD_WIRE_JSON_COMPATIBLE_TYPE"
    assert "cli.orders.v1.OrderPlaced.number was int64, is string. (version 1)" in broken.stdout
    assert "\033" not in broken.stdout

    refused = folder.command("contracts", "lock", APP)
    assert (refused.returncode, refused.stderr) == (1, "linkspan: Not locked: mend this, or say why not with --accept-breaking REASON.\n")
    assert not (folder.path / "contracts" / "0002.binpb").exists()
    accepted = folder.command("contracts", "lock", APP, "--accept-breaking", "not released yet")
    assert "accepted FIELD_WIRE_JSON_COMPATIBLE_TYPE at cli.orders.v1.OrderPlaced.number: not released yet" in accepted.stdout
    assert folder.command("contracts", "check", APP).stdout == "0 errors, 0 warnings against 2 locked versions; 1 accepted before.\n"


def test_formats_say_the_same(folder: Folder) -> None:
    assert folder.command("contracts", "lock", "cli_orders", "--lock", "promised").returncode == 0
    edit(folder, RETYPED, RETYPED_TO)
    check = ("contracts", "check", "cli_orders", "--lock", "promised")
    github = folder.command(*check, "--format", "github")
    assert github.returncode == 1
    assert github.stdout.startswith("::error file=cli_orders.py,line=30,title=FIELD_WIRE_JSON_COMPATIBLE_TYPE::")
    as_json = folder.command(*check, "--format", "json")
    assert [(each["rule"], each["line"]) for each in json.loads(as_json.stdout)["findings"]] == [("FIELD_WIRE_JSON_COMPATIBLE_TYPE", 30)]
    sarif = folder.command(*check, "--format", "sarif", "--out", "findings.sarif")
    assert (sarif.returncode, sarif.stdout) == (1, "")
    log = json.loads((folder.path / "findings.sarif").read_text())
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["FIELD_WIRE_JSON_COMPATIBLE_TYPE"]


def test_bytes_of_a_lock_do_not_depend_on_the_process(folder: Folder) -> None:
    for seed in ("1", "2"):
        folder.command("contracts", "lock", APP, "--lock", f"seed{seed}", PYTHONHASHSEED=seed)
    one, two = ({file.name: file.read_bytes() for file in (folder.path / f"seed{seed}").iterdir()} for seed in ("1", "2"))
    assert one == two
    assert sorted(one) == ["0001.binpb", "lock.json"]


def test_descriptor_file_is_checked_like_a_module(folder: Folder) -> None:
    folder.command("contracts", "lock", APP)
    same = folder.command("contracts", "check", "contracts/0001.binpb")
    assert (same.returncode, same.stdout) == (0, "0 errors, 0 warnings against 1 locked version.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("check", "nowhere"), "There is no module 'nowhere' here"),
        (("check", APP, "--format", "xml"), "'xml' is not one of"),
        (("check", "gone.binpb"), "The file 'gone.binpb' cannot be read"),
        (("check", "cli_orders.py.binpb"), "is no descriptor set"),
        (("check", APP, "--store", "mysql://x"), "The store 'mysql://' is not known"),
        (("check", APP, "--store", "sqlite:///gone.db"), "There is no store at 'gone.db'"),
        (("lock", APP, "--lock", "cli_orders.py"), "cannot be"),
    ],
)
def test_wrong_use_ends_with_two_and_a_sentence(folder: Folder, words: tuple[str, ...], sentence: str) -> None:
    (folder.path / "cli_orders.py.binpb").write_bytes(b"\xff\xff\xff")
    done = folder.command("contracts", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in " ".join(done.stderr.replace("│", " ").split())


def test_stored_messages_are_decoded_beside_the_running_service(folder: Folder) -> None:
    with Running(folder) as run:
        assert run.place("bad", 1, note=CANARY)[0] == 200
        assert run.place("bad", 2, note=CANARY)[0] == 200
        until(lambda: len(folder.query("mail", "select 1 from linkspan_letter")) == 2, "both are held")
        fine = folder.command("contracts", "check", APP, "--store", APP)
        assert fine.returncode == 0, fine.stderr
        assert "2 in letter of mail: cli.orders.v1.OrderPlaced" in fine.stdout
        assert "Nothing is stored in orders." in fine.stdout
        assert "only what is stored was looked at" in fine.stdout

        edit(folder, RETYPED, RETYPED_TO)
        lost = folder.command("contracts", "check", APP, "--store", "sqlite:///.linkspan/mail.db", "--format", "json")
        assert lost.returncode == 1
        found = json.loads(lost.stdout)["findings"]
        assert [(each["rule"], each["type"], each["position"]) for each in found] == [
            ("STORED_FIELD_READ", "cli.orders.v1.OrderPlaced", 1),
            ("STORED_FIELD_READ", "cli.orders.v1.OrderPlaced", 2),
        ]
        ids = [row[0] for row in folder.query("mail", "select id from linkspan_letter order by position")]
        assert [each["id"] for each in found] == ids

        edit(folder, "OrderPlaced", "OrderTaken")
        gone = folder.command("contracts", "check", APP, "--store", APP)
        assert gone.returncode == 1
        assert gone.stdout.count("error STORED_TYPE_EXISTS") == 2
        assert "is in no contract." in gone.stdout
        assert CANARY not in fine.stdout + lost.stdout + gone.stdout + fine.stderr + lost.stderr + gone.stderr
        assert run.process.poll() is None
        assert run.call("GetOrder", orderId="still here")[0] == 200
