"""Large contents: kept elsewhere, seen by nobody but the handler's message, checked on their way in, and removed by age alone."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import App, Blobs, Client, Code, Error, Limits, Service, SetupError, envelope as envelopes
from linkspan.blobs import place_for
from linkspan.blobs.folder import MARK, FolderPlace
from linkspan.blobsweep import sweep
from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.claimcheck import DAY, ClaimCheck, blob_name, written_at
from linkspan.envelope import Envelope, Reference
from linkspan.ports import LetterState, Outgoing
from linkspan.testing.clock import START, fake_runtime
from tests.unit.durable import PLACED_TOPIC, Charge, Placed, System, note, system, until
from tests.unit.test_scheduled import moved, within

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context

TYPE = "durable.test.v1.Placed"
LARGE = "CANARY " * 500
"""3,500 bytes."""


def blobs(folder: Path, **options: Any) -> Blobs:
    return Blobs(f"file:{folder / 'blobs'}", **{"above": 1_024, **options})


def files(folder: Path) -> list[Path]:
    return sorted(file for file in (folder / "blobs").rglob("*") if file.is_file() and file.name != MARK)


def noted() -> tuple[list[str], Any]:
    """Return a list, and a handler that appends what it saw."""
    seen: list[str] = []

    async def see(ctx: Context, event: Placed) -> None:
        seen.append(event.note)
        await note(ctx, event)

    return seen, see


async def publish_large(run: System, number: int = 1, **options: Any) -> None:
    await within(run, lambda ctx: ctx.publish(Placed(order="a", number=number, note=LARGE), **options))


# --- there and back


async def test_a_large_event_reaches_its_handler_and_no_row_has_its_content(tmp_path: Path) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        run.log.stop()
        await publish_large(run)
        store = run.app.running["orders"].store
        assert store is not None
        (row,) = await store.unsent(0, 9)
        run.log.start()
        await moved(run, 1.0)
        await until(lambda: run.mail.counts.handled == 1, "it is handled")

    assert seen == [LARGE]
    assert row.data == b""
    assert b"ce-dataref: folder:orders/" in row.headers
    assert len(files(tmp_path)) == 1


async def test_a_small_one_goes_with_its_message(tmp_path: Path) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.handled == 1, "it is handled")

    assert (seen, files(tmp_path)) == ([""], [])


async def test_a_large_command_of_a_client_and_a_scheduled_one_are_carried_out(tmp_path: Path) -> None:
    found: list[int] = []

    async def charge(ctx: Context, request: Charge) -> Any:
        found.append(len(request.order))
        from tests.unit.durable import Receipt

        return Receipt(order="x")

    async with system(tmp_path, charge=charge, blobs=Blobs(f"file:{tmp_path / 'blobs'}", above=1_024)) as run:
        seen_large: list[str] = []
        async with run.app.client(owns="*") as client:
            await client.publish(Placed(order="a", number=1, note=LARGE))
        await publish_large(run, 2, after=60.0)
        await moved(run, 61.0)
        await until(lambda: run.mail.counts.handled == 2, "both are handled")
        assert await run.effects() == [("a", 1), ("a", 2)]
        assert (seen_large, found) == ([], [])

    assert {file.parent.name for file in files(tmp_path)} == {"client", "orders"}


async def test_the_content_is_written_before_the_commit_and_stays_when_it_is_rolled_back(tmp_path: Path) -> None:
    """An orphan costs a file for a while; a committed message without its content would be lost."""

    async def fails(ctx: Context) -> None:
        await ctx.publish(Placed(order="a", number=1, note=LARGE))
        assert len(files(tmp_path)) == 1
        raise LookupError("no")

    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        with pytest.raises(LookupError):
            await within(run, fails)
        await moved(run)

        assert run.mail.counts.handled == 0
        assert len(files(tmp_path)) == 1


async def test_an_expired_large_message_is_not_fetched(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        run.log.stop()
        await publish_large(run, expires=5)
        for file in files(tmp_path):
            file.unlink()
        await run.clock.advance(10.0)
        run.log.start()
        await run.clock.advance(5.0)
        await until(lambda: run.mail.counts.expired == 1, "it expired")

        assert run.mail.counts.dead == 0


async def test_larger_than_the_cap_is_refused_where_it_is_sent(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path, most=2_000)) as run:
        with pytest.raises(Error, match=r"'Placed' has 35\d\d bytes, 2000 are accepted: send less, or raise Blobs") as caught:
            await publish_large(run)

    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "CANARY" not in str(caught.value)


async def test_without_a_place_a_large_message_says_what_to_set(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        with pytest.raises(Error, match=r"1000000 fit: set App\(blobs=...\)") as caught:
            await within(run, lambda ctx: ctx.publish(Placed(order="a", number=1, note="x" * 1_000_001)))

    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_place_that_is_away_fails_the_sender_and_nothing_is_sent(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        (tmp_path / "blobs" / MARK).unlink()
        with pytest.raises(Error, match="cannot be used now") as caught:
            await publish_large(run)
        await moved(run)

        assert (caught.value.code, caught.value.transient) == (Code.UNAVAILABLE, True)
        assert run.mail.counts.handled == 0


# --- what comes in


async def deliver(run: System, reference: Reference, data: bytes = b"") -> None:
    """Publish a message of another service with a reference of its own making."""
    head = envelopes.prefix(TYPE, "/elsewhere")
    block = envelopes.render(head, Envelope("1", "/elsewhere", TYPE, "a", time="2023-11-14T22:13:20Z"))
    await run.broker.publish(Outgoing(PLACED_TOPIC, "Placed", 1, "1", "a", envelopes.referring(block, reference), data))


def put(folder: Path, content: bytes, name: str = "other/0192f3a4-aaaa-7000-8000-000000000001") -> Reference:
    """Write a blob as another service would."""
    file = folder / "blobs" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Reference(f"folder:{name}", str(len(content)), f"blake2b-256:{blake2b(content, digest_size=32).hexdigest()}")


CONTENT = Placed(order="a", number=7, note="hello").to_binary()


async def test_a_reference_of_another_service_is_followed(tmp_path: Path) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        await deliver(run, put(tmp_path, CONTENT))
        await until(lambda: run.mail.counts.handled == 1, "it is handled")

    assert seen == ["hello"]


async def test_content_in_the_message_counts_before_its_reference(tmp_path: Path) -> None:
    """CloudEvents allows both; what is here needs no fetching."""
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        await deliver(run, Reference("https://evil.example/x", "1", "none"), CONTENT)
        await until(lambda: run.mail.counts.handled == 1, "it is handled")

    assert seen == ["hello"]


NAME = "other/0192f3a4-aaaa-7000-8000-000000000001"
HOSTILE = {
    "another scheme": ({"uri": f"https://evil.example/{NAME}"}, Code.INVALID_ARGUMENT, "names another place"),
    "a file": ({"uri": "file:///etc/passwd"}, Code.INVALID_ARGUMENT, "names another place"),
    "another bucket": ({"uri": f"nats-object:other/{NAME}"}, Code.INVALID_ARGUMENT, "names another place"),
    "a way up": ({"uri": "folder:../../../../etc/passwd"}, Code.INVALID_ARGUMENT, "names no blob"),
    "a way up in the middle": ({"uri": f"folder:other/../{NAME}"}, Code.INVALID_ARGUMENT, "names no blob"),
    "an absolute path": ({"uri": "folder:/etc/passwd"}, Code.INVALID_ARGUMENT, "names no blob"),
    "an encoded way up": ({"uri": "folder:%2e%2e/secret"}, Code.INVALID_ARGUMENT, "names no blob"),
    "a null byte": ({"uri": f"folder:{NAME}%00"}, Code.INVALID_ARGUMENT, ""),
    "a pin": ({"uri": f"folder:_pins/mail/{NAME}"}, Code.INVALID_ARGUMENT, "names no blob"),
    "no length": ({"length": ""}, Code.INVALID_ARGUMENT, "missing or malformed"),
    "a negative length": ({"length": "-1"}, Code.INVALID_ARGUMENT, "missing or malformed"),
    "a huge length": ({"length": "9" * 12}, Code.INVALID_ARGUMENT, "999999999999 bytes, 67108864 are accepted"),
    "a length of many digits": ({"length": "9" * 4_000}, Code.INVALID_ARGUMENT, "missing or malformed"),
    "no digest": ({"digest": ""}, Code.INVALID_ARGUMENT, "missing or malformed"),
    "a digest of another kind": ({"digest": "md5:" + "0" * 32}, Code.INVALID_ARGUMENT, "missing or malformed"),
    "the wrong digest": ({"digest": "blake2b-256:" + "0" * 64}, Code.DATA_LOSS, "it was altered"),
    "a shorter length": ({"length": str(len(CONTENT) - 1)}, Code.DATA_LOSS, "it was altered"),
    "a longer length": ({"length": str(len(CONTENT) + 1)}, Code.DATA_LOSS, "it was altered"),
    "nothing there": ({"uri": f"folder:{NAME[:-1]}9"}, Code.NOT_FOUND, "not in its folder any more"),
}


@pytest.mark.parametrize(("change", "code", "text"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_reference_is_a_dead_letter(tmp_path: Path, change: dict[str, str], code: Code, text: str) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        await deliver(run, envelopes.Reference(**{**_fields(put(tmp_path, CONTENT)), **change}))
        await until(lambda: run.mail.counts.dead == 1, "it is dead")
        (letter,) = await run.store.letters()

    assert (seen, letter.state, letter.code) == ([], LetterState.DEAD, code.value)
    assert text in letter.error


def _fields(reference: Reference) -> dict[str, str]:
    return {"uri": reference.uri, "length": reference.length, "digest": reference.digest}


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    async with system(tmp_path, blobs=blobs(tmp_path), limits=Limits(inline=1, parked=())) as run:
        reference = put(tmp_path, CONTENT)
        file = tmp_path / "blobs" / NAME
        file.unlink()
        {"link": lambda: file.symlink_to(secret), "folder": file.mkdir, "pipe": lambda: os.mkfifo(file)}[kind]()
        await deliver(run, reference)
        await until(lambda: run.mail.counts.dead + run.mail.counts.parked == 1, "it is held")

        assert run.mail.counts.handled == 0


async def test_undecodable_content_is_a_dead_letter_that_holds_nothing_of_it(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        await deliver(run, put(tmp_path, b"\xffCANARY"))
        await until(lambda: run.mail.counts.dead == 1, "it is dead")
        (letter,) = await run.store.letters()

    assert (letter.code, letter.data) == ("invalid_argument", b"")
    assert "CANARY" not in letter.error


async def test_a_service_without_a_place_says_what_to_set(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await deliver(run, put(tmp_path, CONTENT))
        await until(lambda: run.mail.counts.dead == 1, "it is dead")
        (letter,) = await run.store.letters()

    assert letter.code == "failed_precondition"
    assert "none is set here: write App(blobs=" in letter.error
    assert "LINKSPAN_BLOBS" in letter.error


async def test_a_place_that_is_away_parks_the_message_until_it_is_back(tmp_path: Path) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path), limits=Limits(inline=1, parked=(10.0, 10.0))) as run:
        reference = put(tmp_path, CONTENT)
        (tmp_path / "blobs").rename(tmp_path / "unmounted")
        await deliver(run, reference)
        await until(lambda: run.mail.counts.parked == 1, "it is parked")
        (letter,) = await run.store.letters()
        (tmp_path / "unmounted").rename(tmp_path / "blobs")

        async def handled() -> bool:
            await run.clock.advance(1.0)
            return run.mail.counts.handled == 1

        await until(handled, "it is handled")

    assert (letter.state, letter.code, letter.data, seen) == (LetterState.PARKED, "unavailable", b"", ["hello"])


async def test_a_structured_event_may_refer_too(tmp_path: Path) -> None:
    seen, see = noted()
    async with system(tmp_path, see, blobs=blobs(tmp_path)) as run:
        reference = put(tmp_path, b'{"order":"a","note":"as JSON"}')
        event = (
            f'{{"specversion":"1.0","id":"1","source":"/x","type":"{TYPE}","partitionkey":"a","datacontenttype":"application/json",'
            f'"dataref":"{reference.uri}","datalength":"{reference.length}","datadigest":"{reference.digest}"}}'
        )
        headers = b"content-type: application/cloudevents+json\r\n"
        await run.broker.publish(Outgoing(PLACED_TOPIC, "Placed", 1, "1", "a", headers, event.encode()))
        await until(lambda: run.mail.counts.handled == 1, "it is handled")

    assert seen == ["as JSON"]


def test_a_reference_is_read_wherever_it_stands() -> None:
    block = envelopes.render(envelopes.prefix(TYPE, "/x"), Envelope("1", "/x", TYPE, "a", time="2023-11-14T22:13:20Z"))
    behind = block + b"ce-dataref: folder:x\r\nce-datalength: 5\r\nce-datadigest: d\r\n"

    assert envelopes.read(behind).reference == Reference("folder:x", "5", "d")
    assert envelopes.read(envelopes.referring(block, Reference("a b", "5", "d"))).reference == Reference("a b", "5", "d")
    assert envelopes.read(behind, b"content").reference is None
    assert replace_type(envelopes.read(block)) is None


def replace_type(envelope: Envelope) -> Reference | None:
    return envelope.reference


# --- settings


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"above": 1}, "above 1 bytes: give 1024 to 900000"),
        ({"above": 2_000_000}, "above 2000000 bytes"),
        ({"most": 2_000}, "at most 2000 bytes above 262144"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError, match=text):
        Blobs("file:x", **options)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://bucket", "'s3:' is not known: write file:///"),
        ("file:", "names no folder"),
        ("file://server/share", "names no folder"),
        ("nats://user:secret@host/a/b", "cannot be read: write nats://host:port/bucket"),
        ("nats://host?replicas=2", "replicas=3"),
    ],
)
def test_wrong_places_are_refused(url: str, text: str) -> None:
    with pytest.raises(SetupError, match=text) as caught:
        place_for(url)
    assert "secret" not in str(caught.value)


def test_contents_are_kept_longer_than_messages_are_remembered() -> None:
    with pytest.raises(SetupError, match=r"kept for 2592000 s, and service 'a' remembers messages for 2592000 s"):
        App(Service("a"), broker="memory://", blobs=Blobs("file:x", retention=30 * DAY))
    App(Service("a"), broker="memory://", blobs=Blobs("file:x", retention=31 * DAY))
    App(Service("a"), broker="memory://", blobs=Blobs("file:x", retention=None))


@pytest.mark.parametrize(
    ("broker", "environment", "prefix"),
    [("", "", "folder:"), ("memory://", "", None), ("memory://", "nats://host:4222/shop", "nats-object:shop/")],
    ids=["beside the embedded server", "nowhere", "by the environment"],
)
def test_the_place_by_default(monkeypatch: pytest.MonkeyPatch, broker: str, environment: str, prefix: str | None) -> None:
    monkeypatch.setenv("LINKSPAN_BLOBS", environment)
    monkeypatch.delenv("LINKSPAN_BROKER", raising=False)
    place = App(Service("a"), broker=broker).claims.place

    assert (place.prefix if place is not None else None) == prefix


async def test_a_folder_that_cannot_be_made_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(SetupError, match="The folder for blobs cannot be used"):
        await FolderPlace(tmp_path / "blobs").open()


async def test_a_client_of_its_own_has_a_place_too(tmp_path: Path) -> None:
    runtime, _ = fake_runtime()
    broker = MemoryBroker(runtime=runtime, faults=Faults(), log=MemoryLog())
    await broker.open()
    async with Client(broker, runtime=runtime, owns="*", name="Import Job", blobs=blobs(tmp_path)) as client:
        await client.publish(Placed(order="a", number=1, note=LARGE))
    await broker.aclose()

    assert [file.parent.name for file in files(tmp_path)] == ["import-job"]


# --- removal


async def jump(run: System, seconds: float) -> None:
    """Be that much later at once, as a process that was suspended; what became due runs once."""
    run.clock._now += seconds
    await run.clock.advance(0.1)


async def row_gone(run: System) -> None:
    """Wait until no outbox row refers to a content any more."""

    async def gone() -> bool:
        await run.clock.advance(0.1)
        return await orders.read("select count(*) from linkspan_outbox") == [(0,)]

    orders = run.app.running["orders"].store
    assert orders is not None
    await until(gone, "the outbox row is deleted")


def test_a_name_says_when_it_was_written() -> None:
    runtime, _ = fake_runtime()
    name = blob_name("orders", runtime.ids.new())

    assert abs(written_at(name) - START) < 0.002


async def swept(run: System) -> int:
    stores = {name: each.store for name, each in run.app.running.items() if each.store is not None}
    return await sweep(run.app.claims, stores, run.runtime)


async def test_old_contents_are_removed_and_young_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.blobsweep.EVERY", 1e9)  # only when the test says so
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        await publish_large(run, 1)
        await until(lambda: run.mail.counts.handled == 1, "it is handled")
        await row_gone(run)
        await jump(run, 36.5 * DAY)
        await publish_large(run, 2)
        await until(lambda: run.mail.counts.handled == 2, "it is handled")
        await row_gone(run)
        before = await swept(run)
        await jump(run, DAY)
        after = await swept(run)
        (left,) = files(tmp_path)

    assert (before, after) == (0, 1)
    assert written_at(f"orders/{left.name}") > START + 36 * DAY


async def test_a_running_app_removes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.blobsweep.EVERY", 10.0)
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        old = tmp_path / "blobs" / "orders" / "01880000-aaaa-7000-8000-000000000001"
        old.parent.mkdir()
        old.write_bytes(b"months before")

        async def gone() -> bool:
            await run.clock.advance(1.0)
            return not old.exists()

        await until(gone, "it is removed")


async def test_what_a_row_refers_to_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead letter of one service and a scheduled message of another, both older than the retention."""
    monkeypatch.setattr("linkspan.blobsweep.EVERY", 1e9)  # only when the test says so

    async def refuses(ctx: Context, event: Placed) -> None:
        if event.number == 1:
            raise Error.refused("Never.")
        await note(ctx, event)

    async with system(tmp_path, refuses, blobs=blobs(tmp_path)) as run:
        await publish_large(run, 1)
        await until(lambda: run.mail.counts.dead == 1, "it is dead")
        await within(run, lambda ctx: ctx.publish(Placed(order="b", number=2, note=LARGE), after=100 * DAY))
        for _ in range(3):
            assert await swept(run) == 0
            await jump(run, 33 * DAY)
        contents = [file for file in files(tmp_path) if "_pins" not in file.parts]
        await jump(run, 2 * DAY)
        await moved(run)
        await until(lambda: run.mail.counts.handled == 1, "the scheduled one is handled with its content")

        await row_gone(run)
        assert len(contents) == 2
        (letter,) = await run.store.letters()
        assert await run.store.discard(letter.position, who="ann", why="old", at=run.clock.now())
        await swept(run)
        assert len([file for file in files(tmp_path) if "_pins" not in file.parts]) == 2  # as long as one that was written today
        await jump(run, 38 * DAY)
        await swept(run)
        await swept(run)
        assert files(tmp_path) == []


async def test_the_first_sweep_after_a_long_time_keeps_what_a_row_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has pinned it yet: the service was down for longer than the retention."""
    monkeypatch.setattr("linkspan.blobsweep.EVERY", 1e9)  # only when the test says so
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        await within(run, lambda ctx: ctx.publish(Placed(order="b", number=2, note=LARGE), after=100 * DAY))
        await jump(run, 60 * DAY)

        assert await swept(run) == 0
        assert len([file for file in files(tmp_path) if "_pins" not in file.parts]) == 1


async def test_a_pin_of_another_process_keeps_a_content(tmp_path: Path) -> None:
    """Its service may be down, with its rows in a database that nobody else sees."""
    runtime, clock = fake_runtime()
    claims = ClaimCheck(blobs(tmp_path), runtime)
    await claims.open()
    message = Outgoing("t", "Placed", 1, "1", "a", b"\r\nce-id: 1\r\n", b"x" * 5_000)
    first, second = [await claims.stow("orders", message) for _ in range(2)]
    assert claims.place is not None
    names = [claims.name_of(each.headers.decode().split("ce-dataref: ")[1].split("\r\n")[0]) for each in (first, second)]
    await claims.place.put(f"_pins/mail/{names[0]}/{runtime.ids.new()}", b"")
    await clock.advance(400 * DAY)

    assert await sweep(claims, {}, runtime) == 1
    assert [name async for name in claims.place.names() if not name.startswith("_pins/")] == [names[0]]


async def test_what_is_no_blob_of_ours_is_left_alone(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path)) as run:
        (tmp_path / "blobs" / "readme.txt").write_text("mine")
        (tmp_path / "blobs" / "notes").mkdir()
        (tmp_path / "blobs" / "notes" / "mine").write_text("mine")
        await jump(run, 400 * DAY)
        await swept(run)

        assert len(files(tmp_path)) == 2


async def test_contents_kept_for_ever_are_never_swept(tmp_path: Path) -> None:
    async with system(tmp_path, blobs=blobs(tmp_path, retention=None)) as run:
        await publish_large(run)
        await jump(run, 400 * DAY)

        assert (await swept(run), len(files(tmp_path))) == (0, 1)
