"""Dead letters by the command line: beside the running service and without it, in order, masked and audited."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.command_line import Folder, Running, until

if TYPE_CHECKING:
    from pathlib import Path

WHY = "the address is there now"
CANARY = "CANARY-4711"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def held(folder: Folder) -> list[tuple[str, str]]:
    return folder.query("mail", "select key, state from linkspan_letter order by position")


def thanked(folder: Folder) -> list[tuple[str, int]]:
    return folder.query("mail", "select order_id, number from thanks order by rowid")


def audit(folder: Folder) -> list[tuple[str, ...]]:
    return folder.query("mail", "select action, who, why, key from linkspan_audit order by position")


def three_of_one_key(run: Running, key: str) -> None:
    """Place three orders of one key, of which mail cannot handle the first."""
    for number in (1, 2, 3):
        assert run.place(key, number, note=CANARY)[0] == 200


def test_redrive_beside_the_running_service_frees_the_key_in_order(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        assert run.place("good", 9)[0] == 200
        until(lambda: [state for _, state in held(folder)] == ["dead", "waiting", "waiting"], "one is dead, two wait behind it")
        until(lambda: thanked(folder) == [("good", 9)], "other keys flow")

        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        everything = folder.rows("dead", "list", "cli_orders:app", "--all", "--service", "mail")
        (folder.path / "mended").touch()
        done = folder.command("dead", "redrive", "cli_orders:app", str(dead["number"]), "--service", "mail", "--why", WHY)
        until(lambda: held(folder) == [], "the key is free")
        assert run.stop() == 0

    assert (dead["service"], dead["type"], dead["code"]) == ("mail", "cli.orders.v1.OrderPlaced", "failed_precondition")
    assert [row["state"] for row in everything] == ["dead", "waiting", "waiting"]
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 will be tried again.\n", "")
    assert thanked(folder) == [("good", 9), ("bad-1", 1), ("bad-1", 2), ("bad-1", 3)]
    assert audit(folder) == [("redrive", getpass.getuser(), WHY, "bad-1")]


def test_discard_beside_the_running_service_lets_the_next_move_up(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        until(lambda: len(held(folder)) == 3, "all three are held")
        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        done = folder.command("dead", "discard", "cli_orders:app", str(dead["number"]), "--service", "mail", "--why", "a test order")
        until(lambda: held(folder) == [], "the key is free")
        again = folder.command("dead", "discard", "cli_orders:app", str(dead["number"]), "--service", "mail", "--why", "a test order")
        assert run.stop() == 0

    assert (done.returncode, done.stdout) == (0, "Discarded.\n")
    assert again.returncode == 2
    assert "is no dead letter" in again.stderr
    assert thanked(folder) == [("bad-1", 2), ("bad-1", 3)]
    assert audit(folder) == [("discard", getpass.getuser(), "a test order", "bad-1")]


def test_everything_works_without_the_service_too(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        three_of_one_key(run, "bad-2")
        until(lambda: len(held(folder)) == 6, "all six are held")
        assert run.stop() == 0

    first, second = folder.rows("dead", "list", "cli_orders:app", "--letters")
    assert first["group"] == second["group"]
    (folder.path / "mended").touch()
    mail = ["cli_orders:app", "--service", "mail", "--why", WHY]
    redriven = folder.command("dead", "redrive", *mail, str(first["number"]), "4711")
    discarded = folder.command("dead", "discard", *mail, str(second["number"]))
    assert folder.rows("dead", "list", "cli_orders:app", "--letters") == []
    assert thanked(folder) == []
    with Running(folder) as run:
        until(lambda: held(folder) == [], "the next process takes them up")
        assert run.stop() == 0

    assert (redriven.returncode, redriven.stdout) == (1, "1 will be tried again.\n")
    assert "no dead letters of 'mail': 4711" in redriven.stderr
    assert discarded.returncode == 0
    assert [number for key, number in thanked(folder) if key == "bad-1"] == [1, 2, 3]
    assert [number for key, number in thanked(folder) if key == "bad-2"] == [2, 3]
    assert [row[0] for row in audit(folder)] == ["redrive", "discard"]


def test_show_masks_personal_data(folder: Folder) -> None:
    with Running(folder) as run:
        assert run.place("bad-1", note=CANARY)[0] == 200
        until(lambda: len(held(folder)) == 1, "it is held")
        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        number = str(dead["number"])
        shown = folder.command("dead", "show", "cli_orders:app", number, "--service", "mail")
        fields = folder.rows("dead", "show", "cli_orders:app", number, "--service", "mail")
        unknown = folder.command("dead", "show", "cli_orders:app", "99", "--service", "mail")
        nameless = folder.command("dead", "show", "cli_orders:app", number)
        status = folder.rows("outbox", "status", "cli_orders:app")
        assert run.stop() == 0

    assert CANARY not in shown.stdout + json.dumps(fields)
    assert fields["content"] == "OrderPlaced(order_id='bad-1', number=1, note=***)"
    assert fields["error"] == "There is no address: ask for one."
    assert (fields["topic"], fields["source"], fields["attempts"]) == ("cli.orders.v1.events", "/orders", 1)
    assert unknown.stderr == "linkspan: Service 'mail' holds no message 99: look at `linkspan dead list`.\n"
    assert "name one with --service (orders, mail)" in nameless.stderr
    assert (unknown.returncode, nameless.returncode) == (2, 2)
    assert [(row["service"], row["waiting"]) for row in status] == [("orders", 0), ("mail", 0)]


def test_dead_letters_are_grouped_by_cause_and_explained(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        three_of_one_key(run, "bad-2")
        assert run.place("broken-mail", note=CANARY)[0] == 200
        until(lambda: len(held(folder)) == 6, "all six are held")
        (group,) = folder.rows("dead", "list", "cli_orders:app")
        same = folder.rows("dead", "list", "cli_orders:app", "--group", group["group"])
        number = str(group["oldest"])
        said = folder.command("dead", "explain", "cli_orders:app", number, "--service", "mail")
        explained = folder.rows("dead", "explain", "cli_orders:app", number, "--service", "mail")
        status = folder.rows("dead", "status", "cli_orders:app", "--service", "mail")
        assert run.stop() == 0

    assert (group["count"], group["keys"], group["behind"], group["code"]) == (2, 2, 4, "failed_precondition")
    assert group["error"] == "There is no address: ask for one."
    assert [row["key"] for row in same] == ["bad-1", "bad-2"]
    assert explained["where"][0].startswith("cli_orders.py thank:")
    assert [(each["attempts"], each["code"]) for each in explained["tries"]] == [(1, "failed_precondition")]
    assert (explained["behind"], len(explained["next behind"])) == (2, 2)
    assert "Bring things in order, then redrive" in said.stdout
    assert CANARY not in said.stdout
    assert [(row["dead"], row["waiting"], row["keys"], row["held"], row["state"]) for row in status] == [(2, 4, 2, "6 of 1000000", "ok")]


def test_personal_data_is_shown_only_when_asked_aloud_and_audited(folder: Folder) -> None:
    with Running(folder) as run:
        assert run.place("bad-1", note=CANARY)[0] == 200
        until(lambda: len(held(folder)) == 1, "it is held")
        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        shown = ["dead", "show", "cli_orders:app", str(dead["number"]), "--service", "mail", "--raw"]
        silent = folder.command(*shown)
        aloud = folder.command(*shown, "--why", "ticket 4711", "--who", "ada")
        entries = folder.rows("dead", "audit", "cli_orders:app")
        assert run.stop() == 0

    assert (silent.returncode, CANARY in silent.stdout) == (2, False)
    assert "--why" in silent.stderr
    assert CANARY in aloud.stdout
    assert [(row["action"], row["who"], row["why"], row["key"]) for row in entries] == [("show raw", "ada", "ticket 4711", "bad-1")]


def test_a_group_is_discarded_together(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        three_of_one_key(run, "bad-2")
        until(lambda: len(held(folder)) == 6, "all six are held")
        (group,) = folder.rows("dead", "list", "cli_orders:app")
        words = ["dead", "discard", "cli_orders:app", "--service", "mail", "--why", "test orders"]
        unsaid = folder.command(*words)
        done = folder.command(*words, "--group", group["group"])
        until(lambda: held(folder) == [], "the keys are free")
        assert run.stop() == 0

    assert (unsaid.returncode, done.stdout) == (2, "2 discarded.\n")
    assert sorted(thanked(folder)) == [("bad-1", 2), ("bad-1", 3), ("bad-2", 2), ("bad-2", 3)]
    assert [row[0] for row in audit(folder)] == ["discard", "discard"]
    assert folder.query("mail", "select count(*) from linkspan_attempt") == [(0,)]


def test_a_group_is_redriven_at_a_rate_with_a_canary_and_can_be_seen(folder: Folder) -> None:
    keys = [f"bad-{number}" for number in range(12)]
    redrive = ["dead", "redrive", "cli_orders:app", "--service", "mail"]
    with Running(folder) as run:
        for key in keys:
            assert run.place(key, 1)[0] == 200
        until(lambda: len(held(folder)) == 12, "all are held")
        (group,) = folder.rows("dead", "list", "cli_orders:app")
        many = ["--group", group["group"], "--rate", "50", "--why", WHY, "--watch"]
        failed = folder.command(*redrive, *many, "--canary", "5")
        (folder.path / "mended").touch()
        done = folder.command(*redrive, *many)
        nothing = folder.command(*redrive, *many)
        second, first = folder.rows(*redrive, "--status")
        idle = folder.command(*redrive, "--stop", "--why", "enough")
        assert run.stop() == 0

    assert failed.returncode == 1
    assert "mend the cause, then redrive again" in failed.stdout
    assert (first["state"], first["handled"], first["of"]) == ("stopped", 0, group["group"])
    assert 2 <= first["tried"] <= 6
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("12 will be tried again, 12 first, then at most 50 a second.\n")
    assert done.stdout.endswith("done: 12 of 12 tried: 12 handled, 0 failed again\n")
    assert (second["state"], second["handled"], second["failed"], second["who"]) == ("done", 12, 0, getpass.getuser())
    assert sorted(thanked(folder)) == sorted((key, 1) for key in keys)
    assert (nothing.returncode, "has no such dead letters" in nothing.stderr) == (2, True)
    assert (idle.returncode, "nothing to stop" in idle.stderr) == (2, True)


def test_an_edited_copy_takes_the_place_of_a_dead_letter(folder: Folder) -> None:
    edit = ["dead", "edit", "cli_orders:app"]
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        until(lambda: len(held(folder)) == 3, "all three are held")
        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        number = str(dead["number"])
        before = folder.rows("dead", "show", "cli_orders:app", number, "--service", "mail")
        mail = [number, "--service", "mail", "--why", "typing error"]
        personal = folder.command(*edit, *mail, "--set", "note=Ada")
        unknown = folder.command(*edit, *mail, "--set", "nmber=7")
        misfit = folder.command(*edit, *mail, "--set", "number=many")
        key = folder.command(*edit, *mail, "--set", "order_id=good-1")
        (folder.path / "note.json").write_text('{"note": "Ada"}')
        done = folder.command(*edit, *mail, "--set", "number=7", "--from", "note.json")
        after = folder.rows("dead", "show", "cli_orders:app", number, "--service", "mail")
        folder.command("dead", "redrive", "cli_orders:app", number, "--service", "mail", "--why", WHY)
        until(lambda: held(folder) == [], "the key is free")
        assert run.stop() == 0

    assert "holds personal data" in personal.stderr
    assert "has no field 'nmber': it has order_id, number, pause, note." in unknown.stderr
    assert "give each field what its type takes" in misfit.stderr
    assert "The order key of 'cli.orders.v1.OrderPlaced' cannot be changed" in key.stderr
    assert {each.returncode for each in (personal, unknown, misfit, key)} == {2}
    assert (done.returncode, "number=7, note=***" in done.stdout, "Ada" in done.stdout) == (0, True, False)
    assert after["id"] != before["id"]
    assert (after["corrects"], after["number"], after["state"]) == (before["id"], dead["number"], "dead")
    assert thanked(folder) == [("bad-1", 7), ("bad-1", 2), ("bad-1", 3)]
    assert audit(folder)[0] == (f"edit to {after['id']}", getpass.getuser(), "typing error", "bad-1")
    assert folder.query("mail", "select id, resolved_by from linkspan_original") == [(before["id"], after["id"])]


def test_dry_run_shows_what_the_handler_would_do_and_nothing_of_it_stays(folder: Folder) -> None:
    with Running(folder) as run:
        three_of_one_key(run, "bad-1")
        until(lambda: len(held(folder)) == 3, "all three are held")
        (dead,) = folder.rows("dead", "list", "cli_orders:app", "--letters")
        words = ["dead", "dry-run", "cli_orders:app", str(dead["number"]), "--service", "mail"]
        settings = {"LINKSPAN_ADDRESSES": f"orders={run.address}"}
        fails = folder.command(*words, **settings)
        (folder.path / "mended").touch()
        succeeds = folder.command(*words, **settings)
        before = (held(folder), thanked(folder), audit(folder))
        again = folder.command(*words, "--json", **settings)
        assert run.stop() == 0

    assert (fails.returncode, succeeds.returncode) == (1, 0)
    assert "fails. Nothing was written, nothing was published." in fails.stdout
    assert "failed_precondition: There is no address: ask for one." in fails.stdout
    assert "at cli_orders.py thank:" in fails.stdout
    assert "succeeds. Nothing was written, nothing was published." in succeeds.stdout
    assert "insert into thanks values (?, ?)  [2 values]" in succeeds.stdout
    assert "cli.orders.v1.Orders.GetOrder" in succeeds.stdout
    assert CANARY not in fails.stdout + succeeds.stdout
    assert before == ([("bad-1", "dead"), ("bad-1", "waiting"), ("bad-1", "waiting")], [], [])
    assert json.loads(again.stdout)["outcome"] == "succeeds"


def test_before_the_first_run_it_says_so(folder: Folder) -> None:
    listed = folder.command("dead", "list", "cli_orders:app")
    wrong = folder.command("outbox", "status", "cli_orders:app", "--service", "billing")

    assert listed.stderr == "linkspan: There is no database of this app here yet: run it first, or start in its folder.\n"
    assert wrong.stderr == "linkspan: There is no service 'billing' in this app: name one of orders, mail.\n"
    assert (listed.returncode, wrong.returncode) == (2, 2)
