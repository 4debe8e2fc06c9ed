"""Streams in the one shape: both sides, every kind, the same middleware, errors, deadlines, clean-up and transactions as calls."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Code, Context, Error, SetupError
from linkspan.path import Side
from linkspan.testing import settled
from tests.unit.app_streams import Count, Counted, Number, Numbers, numbers, numbers_service, streams_app
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from linkspan import App, Handler

TABLE = "create table seen (value integer primary key)"


async def values(stream: AsyncIterator[Number]) -> list[int]:
    return [number.value async for number in stream]


async def written(app: App) -> list[Any]:
    store = app.running["numbers"].store
    assert store is not None
    return [row[0] for row in await store.read("select value from seen order by value")]


async def test_every_kind_of_stream_reaches_its_handler_and_comes_back(tmp_path: Path) -> None:
    async with streams_app(tmp_path, numbers_service()) as app, app.client() as client:
        assert await values(client.stream(Numbers.count, Count(to=3))) == [1, 2, 3]
        assert await client.call(Numbers.add, numbers(1, 2, 3)) == Number(value=6)
        assert await values(client.stream(Numbers.double, numbers(1, 2, 3))) == [2, 4, 6]
        assert await values(client.stream(Numbers.note, Count(to=2))) == [1, 2]
        assert await client.call(Numbers.keep, numbers()) == Number(value=0)
        assert await values(client.stream(Numbers.swap, numbers())) == []
        assert await client.call(Numbers.one, Count(to=1)) == Number(value=1)


async def test_handlers_call_streams_of_others(tmp_path: Path) -> None:
    async def total(ctx: Context, request: Count) -> Number:
        found = [number async for number in ctx.stream(Numbers.count, Count(to=request.to))]
        doubled = [number async for number in ctx.stream(Numbers.double, numbers(*[number.value for number in found]))]
        return await ctx.call(Numbers.add, numbers(*[number.value for number in doubled]))

    async with streams_app(tmp_path, numbers_service(one=total)) as app, app.client() as client:
        assert await client.call(Numbers.one, Count(to=3)) == Number(value=12)


async def test_both_sides_of_a_bidirectional_stream_take_turns(tmp_path: Path) -> None:
    asked: asyncio.Queue[int] = asyncio.Queue()

    async def asking() -> AsyncIterator[Number]:
        while value := await asked.get():
            yield Number(value=value)

    async with streams_app(tmp_path, numbers_service()) as app, app.client() as client:
        answers = client.stream(Numbers.double, asking(), timeout=10)
        for value in (1, 2, 3):  # each is asked when the answer to the one before has come
            asked.put_nowait(value)
            assert (await anext(answers)).value == 2 * value
        asked.put_nowait(0)
        assert [number async for number in answers] == []


# --- middleware


class Noting:
    """Writes down what passes it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        side = "client" if ctx.side is Side.CLIENT else "server"
        self.seen.append(f"{side} in")
        try:
            answer = await call_next(ctx, request)
        except BaseException as error:
            self.seen.append(f"{side} {type(error).__name__}")
            raise
        self.seen.append(f"{side} out")
        return answer


async def test_middleware_wraps_the_whole_iteration_once_on_both_sides(tmp_path: Path) -> None:
    noting = Noting()

    async def watched(ctx: Context, request: Count) -> AsyncIterator[Number]:
        for value in (1, 2):
            noting.seen.append(f"yield {value}")
            yield Number(value=value)

    async with streams_app(tmp_path, numbers_service(count=watched), middleware=[noting]) as app, app.client() as client:
        async for number in client.stream(Numbers.count, Count()):
            noting.seen.append(f"read {number.value}")

    assert noting.seen[:3] == ["client in", "server in", "yield 1"]
    assert sorted(noting.seen[3:6]) == ["read 1", "read 2", "yield 2"] or "server out" in noting.seen[3:6]
    assert noting.seen[-1] == "client out"
    assert noting.seen.count("server in") == noting.seen.count("server out") == 1


async def test_middleware_may_see_and_change_requests_and_responses(tmp_path: Path) -> None:
    class Tenfold:
        async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
            if ctx.side is Side.CLIENT:
                return await call_next(ctx, request)
            emit = ctx.emit
            assert emit is not None

            async def tenfold(response: Number) -> None:
                await emit(Number(value=10 * response.value))

            ctx.emit = tenfold
            return await call_next(ctx, (Number(value=number.value + 1) async for number in request))

    async with streams_app(tmp_path, numbers_service(), middleware=[Tenfold()]) as app, app.client() as client:
        assert await values(client.stream(Numbers.double, numbers(1, 2))) == [40, 60]


async def test_middleware_that_refuses_streams_is_refused_at_start(tmp_path: Path) -> None:
    class Retrying(Noting):
        streams = False

    sentence = r"Middleware 'Retrying' cannot wrap the stream 'app.streams.v1.Numbers.Count': give it to services without streams"
    with pytest.raises(SetupError, match=sentence):
        streams_app(tmp_path, numbers_service(), middleware=[Retrying()])
    with pytest.raises(SetupError, match=sentence):
        streams_app(tmp_path, numbers_service(more={"middleware": [Retrying()]}))
    async with Client(addresses="http://127.0.0.1:1", middleware=[Retrying()]) as client:
        with pytest.raises(SetupError, match=sentence):
            await values(client.stream(Numbers.count, Count()))


# --- errors


async def failing(ctx: Context, request: Count) -> AsyncIterator[Number]:
    yield Number(value=1)
    if request.text == "coded":
        raise Error(Code.NOT_FOUND, "No more numbers.", [Number(value=7)])
    if request.text == "wrong":
        yield request  # type: ignore[misc]
    if request.text == "stray":
        raise asyncio.CancelledError
    raise ValueError("secret")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("coded", Code.NOT_FOUND, "No more numbers."),
        ("bug", Code.INTERNAL, "'app.streams.v1.Numbers.Count' failed; its service has logged it as"),
        ("wrong", Code.INTERNAL, "The handler of 'app.streams.v1.Numbers.Count' yielded a Count: yield its response type."),
        ("stray", Code.INTERNAL, "Internal error"),
    ],
)
async def test_what_a_handler_raises_ends_the_stream_with_its_code(text: str, code: Code, told: str, tmp_path: Path) -> None:
    async with streams_app(tmp_path, numbers_service(count=failing)) as app, app.client() as client:
        stream = client.stream(Numbers.count, Count(text=text))
        assert (await anext(stream)).value == 1
        with pytest.raises(Error) as raised:
            await anext(stream)
        assert (raised.value.code, raised.value.message[: len(told)]) == (code, told)
        assert "secret" not in raised.value.message
        assert raised.value.details == ((Number(value=7),) if text == "coded" else ())
        assert await values(client.stream(Numbers.double, numbers(1))) == [2]  # the server goes on


async def test_what_requests_raise_reaches_the_caller_and_ends_the_handler(tmp_path: Path) -> None:
    heard: list[object] = []

    async def keep(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        try:
            async for request in requests:
                heard.append(request.value)  # noqa: PERF401 - each when it comes
        except BaseException as error:
            heard.append(error.code if isinstance(error, Error) else type(error))
            raise
        return Number()

    async def breaking() -> AsyncIterator[Number]:
        yield Number(value=1)
        await until(lambda: heard == [1], "the handler has the first")
        raise LookupError("mine")

    async with streams_app(tmp_path, numbers_service(keep=keep)) as app, app.client() as client:
        with pytest.raises(LookupError, match="mine"):
            await client.call(Numbers.keep, breaking())
        await until(lambda: len(heard) == 2, "the handler has ended")
    assert heard[1] in (asyncio.CancelledError, Code.CANCELED)


async def test_wrong_requests_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with Client(addresses="http://127.0.0.1:1") as client:
        with pytest.raises(Error, match="was given a Number: call it with its own request"):
            client.stream(Numbers.count, Number())  # type: ignore[arg-type]
        with pytest.raises(Error, match="was given a Number: give an async iterable of its requests"):
            await client.call(Numbers.add, Number())  # type: ignore[call-overload]
        with pytest.raises(Error, match="answers with a stream: use stream instead of call"):
            await client.call(Numbers.count, Count())  # type: ignore[call-overload]
        with pytest.raises(Error, match="has one answer: use call instead of stream"):
            client.stream(Numbers.one, Count())  # type: ignore[call-overload]


async def test_request_of_another_type_in_a_stream_is_refused(tmp_path: Path) -> None:
    async def mixed() -> AsyncIterator[Any]:
        yield Number(value=1)
        yield Count()

    async with streams_app(tmp_path, numbers_service()) as app, app.client() as client:
        with pytest.raises(Error, match="was given a Count in its stream: send its own requests"):
            await client.call(Numbers.add, mixed())


# --- deadlines, cancellation, back-pressure


class Watched:
    """A stream without end, and what happened to its handler."""

    def __init__(self) -> None:
        self.yielded = 0
        self.ended: list[type[BaseException]] = []

    async def count(self, ctx: Context, request: Count) -> AsyncIterator[Number]:
        try:
            while True:
                self.yielded += 1
                yield Number(value=self.yielded, text="x" * request.to)
                if request.text == "once":
                    await asyncio.Event().wait()
        except BaseException as error:
            await asyncio.sleep(0)  # clean-up may wait
            self.ended.append(type(error))
            raise


async def test_reader_that_goes_away_cancels_the_handler(tmp_path: Path) -> None:
    watched = Watched()
    async with streams_app(tmp_path, numbers_service(count=watched.count)) as app, app.client() as client:
        async for number in client.stream(Numbers.count, Count(text="once")):
            assert number.value == 1
            break
        await until(lambda: watched.ended != [], "the handler has cleaned up")
        async with aclosing(client.stream(Numbers.count, Count(to=100))) as stream:
            await anext(stream)
        await until(lambda: len(watched.ended) == 2, "the handler that was yielding has cleaned up, too")
    assert watched.ended == [asyncio.CancelledError, asyncio.CancelledError]


async def test_reader_that_is_cancelled_is_cancelled_and_so_is_the_handler(tmp_path: Path) -> None:
    watched = Watched()
    async with streams_app(tmp_path, numbers_service(count=watched.count)) as app, app.client() as client:
        stream = client.stream(Numbers.count, Count(text="once"))
        await anext(stream)
        with pytest.raises(TimeoutError):  # not an Error: trap 1 of connectrpc's client
            async with asyncio.timeout(0.05):
                await anext(stream)
        task = asyncio.ensure_future(values(client.stream(Numbers.count, Count(text="once"))))
        await until(lambda: watched.yielded == 2, "the second stream has begun")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: len(watched.ended) == 2, "both handlers have cleaned up")


async def test_deadline_ends_reader_and_handler(tmp_path: Path) -> None:
    watched = Watched()
    async with streams_app(tmp_path, numbers_service(count=watched.count)) as app, app.client() as client:
        stream = client.stream(Numbers.count, Count(text="once"), timeout=0.2)
        assert (await anext(stream)).value == 1
        with pytest.raises(Error) as raised:
            await anext(stream)
        assert raised.value.code is Code.DEADLINE_EXCEEDED
        await until(lambda: watched.ended == [asyncio.CancelledError], "the handler has cleaned up")


async def test_deadline_of_a_handler_bounds_the_streams_that_it_calls(tmp_path: Path) -> None:
    left: list[float] = []

    async def counted(ctx: Context, request: Count) -> AsyncIterator[Number]:
        left.append(ctx.time_left)
        yield Number()

    async def total(ctx: Context, request: Count) -> Number:
        await values(ctx.stream(Numbers.count, Count()))
        return Number()

    async with streams_app(tmp_path, numbers_service(count=counted, one=total)) as app, app.client() as client:
        await client.call(Numbers.one, Count(), timeout=7)
        await values(client.stream(Numbers.count, Count()))
    assert 0 < left[0] <= 7
    assert left[1] == float("inf")


async def standing_still(watched: Watched) -> int:
    """Return how many were yielded, once there are no more for a while."""
    counts = [-1] * 5
    while len(set(counts[-5:])) > 1:
        await asyncio.sleep(0.02)
        counts.append(watched.yielded)
    return counts[-1]


async def test_slow_reader_holds_the_handler(tmp_path: Path) -> None:
    watched = Watched()
    async with streams_app(tmp_path, numbers_service(count=watched.count)) as app, app.client() as client:
        stream = client.stream(Numbers.count, Count(to=100_000))
        await anext(stream)
        held = await standing_still(watched)
        assert held < 200  # what two sockets and their buffers hold
        for _ in range(held + 5):
            await anext(stream)
        assert watched.yielded > held
        await stream.aclose()


async def test_timeout_in_a_handler_works_where_it_yields(tmp_path: Path) -> None:
    impatience = asyncio.Event()

    async def impatient(ctx: Context, request: Count) -> AsyncIterator[Number]:
        try:
            async with asyncio.timeout(0.2):
                while True:
                    yield Number(value=1, text="x" * 100_000)
        except TimeoutError:
            impatience.set()
            yield Number(value=2)

    async with streams_app(tmp_path, numbers_service(count=impatient)) as app, app.client() as client:
        stream = client.stream(Numbers.count, Count())
        await anext(stream)
        await asyncio.wait_for(impatience.wait(), 10)  # it waits for its reader meanwhile
        assert (await values(stream))[-1] == 2


async def test_handler_is_cut_when_the_app_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.app.CALLS", 0.1)
    watched = Watched()
    app = streams_app(tmp_path, numbers_service(count=watched.count))
    async with app:
        client = app.client()
        stream = client.stream(Numbers.count, Count(text="once"))
        await anext(stream)
    assert watched.ended == [asyncio.CancelledError]
    with pytest.raises(Error) as raised:
        await anext(stream)
    assert raised.value.code is Code.UNAVAILABLE
    await client.aclose()


# --- transactions


async def test_what_a_command_records_commits_when_its_stream_ends_well(tmp_path: Path) -> None:
    seen: list[list[Any]] = []

    async def note(ctx: Context, request: Count) -> AsyncIterator[Number]:
        for value in range(1, request.to + 1):
            ctx.tx.record("insert into seen values (?)", value)
            yield Number(value=value)
        seen.append(await written(app))
        await ctx.publish(Counted(key="7"))
        if request.text == "fail":
            raise Error.refused("No.")

    app = streams_app(tmp_path, numbers_service(note=note, more={"migrations": [TABLE]}))
    async with app, app.client() as client:
        with pytest.raises(Error, match="No"):
            await values(client.stream(Numbers.note, Count(to=2, text="fail")))
        assert await written(app) == []
        assert await values(client.stream(Numbers.note, Count(to=2))) == [1, 2]
        assert await written(app) == [1, 2]
        with pytest.raises(Error) as raised:
            await values(client.stream(Numbers.note, Count(to=2)))
        assert raised.value.code is Code.ALREADY_EXISTS  # the reader hears of a commit that failed
    assert seen == [[], [], [1, 2]]


async def test_reader_that_goes_away_undoes_what_was_recorded(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def note(ctx: Context, request: Count) -> AsyncIterator[Number]:
        ctx.tx.record("insert into seen values (1)")
        try:
            yield Number()
            await asyncio.Event().wait()
        finally:
            ended.set()

    app = streams_app(tmp_path, numbers_service(note=note, more={"migrations": [TABLE]}))
    async with app, app.client() as client:
        async for _ in client.stream(Numbers.note, Count()):
            break
        await asyncio.wait_for(ended.wait(), 10)
        assert await written(app) == []


async def test_an_upload_is_one_transaction(tmp_path: Path) -> None:
    async def keep(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        kept = 0
        async for number in requests:
            ctx.tx.record("insert into seen values (?)", number.value)
            kept += 1
        return Number(value=kept)

    app = streams_app(tmp_path, numbers_service(keep=keep, more={"migrations": [TABLE]}))
    async with app, app.client() as client:
        assert await client.call(Numbers.keep, numbers(1, 2, 3)) == Number(value=3)
        assert await written(app) == [1, 2, 3]
        with pytest.raises(Error):
            await client.call(Numbers.keep, numbers(4, 5, 3))
        assert await written(app) == [1, 2, 3]


@pytest.mark.parametrize("verb", ["record", "publish"])
async def test_stream_of_a_query_changes_nothing(verb: str, tmp_path: Path) -> None:
    async def writing(ctx: Context, request: Count) -> AsyncIterator[Number]:
        yield Number()
        if verb == "record":
            ctx.tx.record("insert into seen values (1)")
        await ctx.publish(Counted(key="7"))

    async with streams_app(tmp_path, numbers_service(count=writing)) as app, app.client() as client:
        with pytest.raises(Error, match=f"Cannot {verb} in a query") as raised:
            await values(client.stream(Numbers.count, Count()))
        assert raised.value.code is Code.FAILED_PRECONDITION


async def test_interactive_transaction_may_not_wait_for_the_peer(tmp_path: Path) -> None:
    async def note(ctx: Context, request: Count) -> AsyncIterator[Number]:
        await ctx.tx.execute("insert into seen values (1)")
        yield Number()

    async def keep(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        async for number in requests:
            await ctx.tx.execute("insert into seen values (?)", number.value)
        return Number()

    async def gathered(ctx: Context, requests: AsyncIterator[Number]) -> AsyncIterator[Number]:
        found = [number async for number in requests]
        for number in found:
            yield number
        await ctx.tx.execute("insert into seen values (?)", len(found))

    service = numbers_service(note=note, keep=keep, swap=gathered, more={"migrations": [TABLE]})
    async with streams_app(tmp_path, service) as app, app.client() as client:
        refusal = "would wait for its peer inside an interactive transaction: use ctx.tx.record"
        with pytest.raises(Error, match=refusal):
            await values(client.stream(Numbers.note, Count()))
        with pytest.raises(Error, match=refusal):
            await client.call(Numbers.keep, numbers(1, 2))
        assert await values(client.stream(Numbers.swap, numbers(8, 9))) == [8, 9]
        assert await written(app) == [2]


async def test_no_stream_is_called_after_the_first_statement(tmp_path: Path) -> None:
    async def keep(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        ctx.tx.record("insert into seen values (1)")
        return Number(value=len(await values(ctx.stream(Numbers.count, Count(to=1)))))

    async with streams_app(tmp_path, numbers_service(keep=keep, more={"migrations": [TABLE]})) as app, app.client() as client:
        with pytest.raises(Error, match="after the first statement of a transaction: call first, or use send"):
            await client.call(Numbers.keep, numbers())


async def test_request_generator_is_closed_when_its_call_ends_early(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def first(ctx: Context, requests: AsyncIterator[Number]) -> Number:
        return await anext(requests)

    async def endless() -> AsyncGenerator[Number, None]:
        try:
            while True:
                yield Number(value=5, text="x" * 1000)
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with streams_app(tmp_path, numbers_service(add=first)) as app, app.client() as client:
        assert (await client.call(Numbers.add, endless())).value == 5
        assert closed.is_set()


async def test_stubs_of_streams_answer_in_tests(tmp_path: Path) -> None:
    async def fixed(ctx: Context, request: Count) -> AsyncIterator[Number]:
        yield Number(value=9)

    stubs = {Numbers.count: fixed}
    async with settled(streams_app(tmp_path), stubs=stubs) as run:
        assert await values(run.client.stream(Numbers.count, Count())) == [9]
        with pytest.raises(Error, match="has no stub in this test"):
            await values(run.client.stream(Numbers.double, numbers(1)))
