"""Connect GET: a query in a URL, the same URL for the same question, kept by whoever stands between, and bounded."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import shutil
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from linkspan.contract import Contract
from linkspan.errors import Code, Error
from linkspan.message import Message, field, mapping
from linkspan.operation import ServiceContract, command, query
from linkspan.transport.get import MAX_URL_BYTES, get_path
from linkspan.transport.server import DirectServer, Endpoint, Inbound
from tests.integration.direct_orders import RUNTIME, answering, channel_to, raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from linkspan.transport.connect import ConnectChannel

contract = Contract("shop.cached.v1")
PRICE = "/shop.cached.v1.Prices/Price"


class Ask(Message):
    sku: str = field(1)
    options: dict[str, str] = mapping(2)


class Price(Message):
    sku: str = field(1)
    cents: int = field(2)


class Prices(ServiceContract):
    price = query(Ask, Price, cache=60.0)
    fresh = query(Ask, Price)
    change = command(Ask, Price)


class Shop:
    """Answers, fails or waits, as the article says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Inbound]] = []
        self.cents = 100
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def answer(self, request: Any, inbound: Inbound) -> Any:
        self.asked.append((request.sku, inbound))
        match request.sku:
            case "missing":
                raise Error(Code.NOT_FOUND, "No such article.")
            case "bug":
                raise ValueError("secret")
            case "wait":
                self.began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.ended.set()
        return Price(sku=request.sku[:20], cents=self.cents)


@asynccontextmanager
async def serving_prices(**options: Any) -> AsyncIterator[tuple[Shop, DirectServer]]:
    shop = Shop()
    server = DirectServer([Endpoint(operation, shop.answer) for operation in Prices.operations], runtime=RUNTIME, **options)
    await server.start()
    try:
        yield shop, server
    finally:
        await server.drain(0.5)


async def fetched(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask as the standard library's client does."""

    def fetch() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    return await asyncio.to_thread(fetch)


def in_json(sku: str = "tea", rpc: str = "Price", **more: str) -> str:
    parameters = {"connect": "v1", "encoding": "json", "message": json.dumps({"sku": sku}), **more}
    return f"/shop.cached.v1.Prices/{rpc}?" + "&".join(f"{name}={quote(value)}" for name, value in parameters.items() if value != "-")


def in_binary(sku: str = "tea") -> str:
    return get_path(PRICE, Ask(sku=sku))


# --- server


async def test_query_is_answered_from_its_url() -> None:
    async with serving_prices() as (shop, server):
        status, headers, body = await fetched(server.address, in_binary())
        assert (status, headers["content-type"], Price.from_binary(body)) == (200, "application/proto", Price(sku="tea", cents=100))
        assert int(headers["content-length"]) == len(body)
        status, headers, body = await fetched(server.address, in_json(), connect_timeout_ms="5000")
        assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", {"sku": "tea", "cents": "100"})
        assert 0 < (shop.asked[1][1].timeout or 0) <= 5


async def test_query_is_answered_to_curl() -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("not run: curl is not installed")
    async with serving_prices() as (_, server):
        options = ["-sS", "-G", "--data-urlencode", 'message={"sku":"tea"}', "-d", "encoding=json", "-d", "connect=v1", "-i"]
        process = await asyncio.create_subprocess_exec(curl, *options, server.address + PRICE, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        head, _, body = output.partition(b"\r\n\r\n")
        assert json.loads(body) == {"sku": "tea", "cents": "100"}
        assert b"cache-control: max-age=60" in head


async def test_parameters_may_come_in_any_order_and_with_others() -> None:
    async with serving_prices() as (_, server):
        packed = urlsafe_b64encode(gzip.compress(Ask(sku="tea").to_binary())).decode()
        for path in (
            f"{PRICE}?message=%7B%22sku%22:%22tea%22%7D&utm=1&encoding=json",
            f"{PRICE}?encoding=proto&base64=1&message={urlsafe_b64encode(Ask(sku='tea').to_binary()).decode()}",  # padded
            f"{PRICE}?connect=v1&base64=1&compression=gzip&encoding=proto&message={packed}",
            f"{PRICE}?connect=v1&encoding=proto&message={quote(Ask(sku='tea').to_binary())}",
        ):
            status, _, body = await fetched(server.address, path)
            assert (status, b"tea" in body) == (200, True), path


async def test_cached_query_says_how_long_and_is_not_sent_twice() -> None:
    async with serving_prices() as (shop, server):
        _, headers, body = await fetched(server.address, in_binary())
        assert headers["cache-control"] == "max-age=60"
        for known in (headers["etag"], f"W/{headers['etag']}", f'"other", {headers["etag"]}', "*"):
            status, again, nothing = await fetched(server.address, in_binary(), if_none_match=known)
            assert (status, nothing, again["etag"], again["cache-control"]) == (304, b"", headers["etag"], "max-age=60")
        shop.cents = 120
        status, again, other = await fetched(server.address, in_binary(), if_none_match=headers["etag"])
        assert (status, again["etag"] != headers["etag"], other != body) == (200, True, True)


async def test_connection_goes_on_after_304() -> None:
    async with serving_prices() as (_, server), raw(server.address) as peer:
        ask = f"GET {in_binary()} HTTP/1.1\r\nhost: x\r\n".encode()
        _, headers, _ = await peer.ask(ask + b"\r\n")
        peer.writer.write(ask + f"if-none-match: {headers['etag']}\r\n\r\n".encode())
        assert b"304 Not Modified" in await peer.reader.readuntil(b"\r\n\r\n")
        assert (await peer.ask(ask + b"\r\n"))[0] == 200


@pytest.mark.parametrize(("path", "status"), [(in_json("tea", "Fresh"), 200), (in_json("missing"), 404), (in_json("bug"), 500)])
async def test_what_may_not_be_kept_says_so(path: str, status: int) -> None:
    async with serving_prices() as (_, server):
        found, headers, body = await fetched(server.address, path, if_none_match="*")
        assert (found, headers["cache-control"], "etag" in headers) == (status, "no-store", False)
        assert b"secret" not in body


REFUSED: dict[str, tuple[str, int, str]] = {
    "no message": (in_json(message="-"), 400, "invalid_argument"),
    "no encoding": (in_json(encoding="-"), 415, ""),
    "unknown encoding": (in_json(encoding="xml"), 415, ""),
    "another protocol version": (in_json(connect="v2"), 400, "invalid_argument"),
    "no base64": (in_json(base64="1"), 400, "invalid_argument"),
    "base64 that is none": (in_json(base64="yes"), 400, "invalid_argument"),
    "cut base64": (f"{PRICE}?base64=1&encoding=proto&message=abcde", 400, "invalid_argument"),
    "no JSON": (in_json(message="{"), 400, "invalid_argument"),
    "no protobuf": (f"{PRICE}?base64=1&encoding=proto&message=_____w", 400, "invalid_argument"),
    "twice": (in_json() + "&message=x", 400, "invalid_argument"),
    "not UTF-8": (f"{PRICE}?encoding=json&message=%ff", 400, "invalid_argument"),
    "too many parameters": (in_json() + "&x=1" * 50, 400, "invalid_argument"),
    "unknown compression": (in_json(compression="br"), 501, "unimplemented"),
    "timeout that is none": (in_json(), 400, "invalid_argument"),
    "command": (in_json("tea", "Change"), 405, ""),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_url_that_asks_nothing_is_refused(what: str) -> None:
    path, status, code = REFUSED[what]
    async with serving_prices() as (shop, server):
        headers = {"connect_timeout_ms": "soon"} if "timeout" in what else {}
        found, answered, body = await fetched(server.address, path, **headers)
        assert (found, json.loads(body)["code"] if body else "") == (status, code)
        assert answered["cache-control"] == "no-store"
        assert shop.asked == []
        assert (await fetched(server.address, in_binary()))[0] == 200


async def test_bomb_in_a_url_stays_small() -> None:
    async with serving_prices(max_message_bytes=65_536) as (shop, server):
        packed = urlsafe_b64encode(gzip.compress(Ask(sku="x" * 4_000_000).to_binary())).decode()
        status, _, body = await fetched(server.address, f"{PRICE}?base64=1&compression=gzip&encoding=proto&message={packed}")
        assert (status, json.loads(body)["code"], shop.asked) == (429, "resource_exhausted", [])


async def test_deadline_and_hanging_up_end_the_handler() -> None:
    async with serving_prices() as (shop, server):
        status, _, body = await fetched(server.address, in_json("wait"), connect_timeout_ms="50")
        assert (status, json.loads(body)["code"], shop.ended.is_set()) == (504, "deadline_exceeded", True)
        shop.began.clear()
        shop.ended.clear()
        async with raw(server.address) as peer:
            peer.writer.write(f"GET {in_json('wait')} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            await asyncio.wait_for(shop.began.wait(), 10)
        await asyncio.wait_for(shop.ended.wait(), 10)


# --- client


async def ask(channel: ConnectChannel, sku: str = "tea", operation: Any = Prices.price, **options: str) -> Any:
    return await channel.unary(operation, Ask(sku=sku, options=options), headers={"traceparent": RUNTIME.ids.new()}, timeout=10)


async def test_cached_query_is_asked_by_get() -> None:
    async with serving_prices() as (shop, server), channel_to(server.address) as channel:
        assert await ask(channel) == Price(sku="tea", cents=100)
        assert "content-type" not in shop.asked[0][1].headers
        assert 0 < (shop.asked[0][1].timeout or 0) <= 10
        with pytest.raises(Error, match="No such article"):
            await ask(channel, "missing")
        for operation in (Prices.fresh, Prices.change):
            await ask(channel, operation=operation)
            assert shop.asked[-1][1].headers["content-type"] == "application/proto"


def answer() -> bytes:
    body = Price(sku="tea").to_binary()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def lines_of(*orders: list[str]) -> list[str]:
    return [get_path(PRICE, Ask(sku="tea", options=dict.fromkeys(order, "x"))) for order in orders]


async def test_trap_2_equal_questions_have_one_url() -> None:
    names = [f"option-{number}" for number in range(20)]
    first, second, third = lines_of(names, names[::-1], sorted(names, key=hash))
    assert first == second == third
    assert first.startswith(f"{PRICE}?connect=v1&base64=1&encoding=proto&message=")
    message = parse_qs(urlsplit(first).query)["message"][0]
    assert "=" not in message
    asked = Ask.from_binary(urlsafe_b64decode(message + "=" * (-len(message) % 4)))
    assert asked == Ask(sku="tea", options=dict.fromkeys(names, "x"))
    assert get_path(PRICE, asked) == first  # as a service would ask on


async def test_trap_7_long_questions_are_asked_by_post() -> None:
    async with serving_prices() as (shop, server), channel_to(server.address) as channel:
        for size in (100, 5_000, 6_000, 6_500, 20_000, 100_000):
            assert (await ask(channel, "x" * size)).sku == "x" * 20
            by_get = "content-type" not in shop.asked[-1][1].headers
            assert by_get == (size < 6_100), size
    assert len(get_path(PRICE, Ask(sku="x" * 6_000))) <= MAX_URL_BYTES < len(PRICE) + 6_500 * 4 // 3


async def test_request_of_a_get_has_no_body() -> None:
    peer = answering(answer())

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())
        await writer.drain()

    peer._script = script
    async with peer, channel_to(peer.address) as channel:
        await ask(channel)
    (request,) = peer.requests
    assert request.startswith(f"GET {get_path(PRICE, Ask(sku='tea'))} HTTP/1.1\r\nhost: ".encode())
    for name in (b"content-length", b"content-type", b"accept-encoding", b"connect-protocol-version"):
        assert name not in request


async def test_misfilled_question_is_refused_here() -> None:
    async with channel_to("http://127.0.0.1:1") as channel:
        with pytest.raises(Error) as raised:
            await ask(channel, 5)  # type: ignore[arg-type]
        assert raised.value.code is Code.INVALID_ARGUMENT


# --- in between


class Cache(BaseHTTPRequestHandler):
    """A caching proxy: keeps what says max-age, under its URL, and asks again with its tag when told to."""

    protocol_version = "HTTP/1.1"
    upstream: ClassVar[str]
    kept: ClassVar[dict[str, tuple[dict[str, str], bytes]]]
    stale: ClassVar[bool]
    log: ClassVar[list[str]]

    def do_GET(self) -> None:
        kept = self.kept.get(self.path)
        if kept is not None and not type(self).stale:
            self.log.append("hit")
            self._answer(200, *kept)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        if kept is not None:
            headers["if-none-match"] = kept[0]["etag"]
        status, found, body = self._fetch(headers)
        self.log.append(str(status))
        if status == 304 and kept is not None:
            status, found, body = 200, *kept
        if found.get("cache-control", "").startswith("max-age"):
            self.kept[self.path] = found, body
        self._answer(status, found, body)

    def _fetch(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=10)
        connection.request("GET", self.path, headers=headers)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def caching(upstream: str) -> Iterator[tuple[type[Cache], str]]:
    class Kept(Cache):
        pass

    Kept.upstream, Kept.kept, Kept.stale, Kept.log = urlsplit(upstream).netloc, {}, False, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kept)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Kept, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_cache_in_between_answers_for_the_service() -> None:
    async with serving_prices() as (shop, server):
        with caching(server.address) as (cache, address):
            async with channel_to(address) as channel:
                answers = [await ask(channel, "tea", large="1", green="1"), await ask(channel, "tea", green="1", large="1")]
                assert answers == [Price(sku="tea", cents=100)] * 2
                assert (cache.log, len(shop.asked)) == (["200", "hit"], 1)
                cache.stale = True
                assert await ask(channel, "tea", large="1", green="1") == Price(sku="tea", cents=100)
                shop.cents = 120
                assert (await ask(channel, "tea", large="1", green="1")).cents == 120
                assert cache.log == ["200", "hit", "304", "200"]
                for _ in range(2):
                    with pytest.raises(Error, match="No such article"):
                        await ask(channel, "missing")
                assert cache.log[4:] == ["404", "404"]
