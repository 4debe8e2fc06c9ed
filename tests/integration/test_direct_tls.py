"""TLS on the direct path: real certificates, real handshakes, and sentences for those that fail."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from linkspan import Client, Code, Context, Error, SetupError, Tls
from linkspan.middleware import Deadline, MtlsIdentity, Tracing
from linkspan.transport.tls import client_context, server_context
from tests.integration import direct_orders
from tests.integration.direct_orders import channel_to, get
from tests.unit.app_shop import Find, Found, Orders, Place, Placed, app_of, orders_service, reacting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from linkspan.transport.server import DirectServer

SPIFFE = "spiffe://example.org/mail"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


class Authority:
    """A CA of the test and the files of what it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *names: str, ca: trustme.CA | None = None, **more: Any) -> dict[str, Path]:
        """Issue a certificate; the keywords are Tls's."""
        self._made += 1
        issued = (ca or self.ca).issue_cert(*names, **more)
        cert, key = self._folder / f"{self._made}.pem", self._folder / f"{self._made}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return {"cert": cert, "key": key}

    def issue_svid(self, name: str) -> dict[str, Path]:
        """Issue a certificate with a SPIFFE ID (X.509-SVID), which trustme does not make."""
        self._made += 1
        signer = load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        own = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder(
            issuer_name=x509.load_pem_x509_certificate(self.ca.cert_pem.bytes()).subject,
            subject_name=x509.Name([]),
            public_key=own.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=YESTERDAY,
            not_valid_after=YESTERDAY + timedelta(days=30),
        )
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)])
        cert, key = self._folder / f"{self._made}.pem", self._folder / f"{self._made}.key"
        cert.write_bytes(builder.add_extension(names, critical=True).sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return {"cert": cert, "key": key}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def serving(tls: Tls, *, fast: bool = True) -> AsyncIterator[DirectServer]:
    async with direct_orders.serving(tls=server_context(tls), fast=fast) as (_, server):
        yield server


async def failing(server: DirectServer | str, tls: Tls, *, host: str = "127.0.0.1") -> Error:
    address = server if isinstance(server, str) else server.address.replace("127.0.0.1", host)
    async with channel_to(address, tls=client_context(tls)) as channel:
        with pytest.raises(Error) as caught:
            await get(channel)
    return caught.value


@pytest.mark.parametrize("fast", [True, False])
async def test_calls_over_https(authority: Authority, fast: bool) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1")), fast=fast) as server:
        assert server.address.startswith("https://127.0.0.1:")
        async with channel_to(server.address, tls=client_context(Tls(ca=authority.file))) as channel:
            for _ in range(50):
                assert (await get(channel)).order_id == "7"
            found = await asyncio.gather(*(get(channel, str(number)) for number in range(100)))
            assert [each.order_id for each in found] == [str(number) for number in range(100)]
            assert len(server._watch.connections) <= 64


async def test_one_connection_serves_many_calls(authority: Authority) -> None:
    context = client_context(Tls(ca=authority.file))
    async with serving(Tls(**authority.issue("127.0.0.1"))) as server, channel_to(server.address, tls=context) as channel:
        for _ in range(20):
            await get(channel)
        assert len(server._watch.connections) == 1
        assert server._state.total_requests == 20


async def test_curl_calls_with_the_ca(authority: Authority) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("not run: curl is not installed")
    async with serving(Tls(**authority.issue("127.0.0.1"), client_ca=authority.file)) as server:
        mine = authority.issue("client.local")
        told = ["-sS", "-H", "content-type: application/json", "-d", '{"orderId":"7"}', f"{server.address}{direct_orders.PATH}"]

        def run(*options: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([curl, *options, *told], capture_output=True, text=True, timeout=20, check=False)

        trusting = ["--cacert", str(authority.file)]
        answered = await asyncio.to_thread(run, *trusting, "--cert", str(mine["cert"]), "--key", str(mine["key"]))
        assert '"orderId":"7"' in answered.stdout.replace(" ", ""), answered.stderr
        anonymous = await asyncio.to_thread(run, *trusting)
        assert '"code": "unauthenticated"' in anonymous.stdout
        foreign = authority.issue("client.local", ca=trustme.CA())
        refused = await asyncio.to_thread(run, *trusting, "--cert", str(foreign["cert"]), "--key", str(foreign["key"]))
        assert (refused.returncode != 0, refused.stdout) == (True, "")
        untrusting = await asyncio.to_thread(run)
        assert untrusting.returncode == 60  # curl: peer certificate cannot be authenticated


async def test_unknown_ca_is_told(authority: Authority, tmp_path: Path) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1"))) as server:
        (tmp_path / "other").mkdir()
        error = await failing(server, Tls(ca=Authority(tmp_path / "other").file))
        assert error.code is Code.UNAVAILABLE
        assert "CA that is not trusted here" in error.message
        assert "Tls(ca=...)" in error.message
        assert "not trusted" in (await failing(server, Tls())).message  # nor does the system know it


async def test_wrong_host_is_told(authority: Authority) -> None:
    async with serving(Tls(**authority.issue("orders.example.org"))) as server:
        error = await failing(server, Tls(ca=authority.file))
    assert (error.code, "is for another host" in error.message) == (Code.UNAVAILABLE, True)


async def test_expired_certificate_is_told_and_never_served(authority: Authority) -> None:
    expired = authority.issue("127.0.0.1", not_after=YESTERDAY)
    with pytest.raises(SetupError, match=r"would be refused by every caller \(certificate has expired\): renew it"):
        server_context(Tls(**expired))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expired["cert"], expired["key"])
    async with direct_orders.serving(tls=context) as (_, server):
        assert "has expired" in (await failing(server, Tls(ca=authority.file))).message


async def test_plain_port_is_told(authority: Authority) -> None:
    async with direct_orders.serving() as (_, server):
        error = await failing(server.address.replace("http://", "https://"), Tls(ca=authority.file))
    assert (error.code, "does not speak TLS" in error.message) == (Code.UNAVAILABLE, True)


async def test_old_tls_is_refused(authority: Authority) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1"))) as server:
        old = ssl.create_default_context(cafile=str(authority.file))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server._port, ssl=old)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_caller_without_certificate_is_refused(authority: Authority, newest: ssl.TLSVersion) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1"), client_ca=authority.file)) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.maximum_version = newest
        async with channel_to(server.address, tls=context) as channel:
            with pytest.raises(Error) as caught:
                await get(channel)
    assert caught.value.code is Code.UNAUTHENTICATED
    assert "only callers with a client certificate" in caught.value.message


async def test_caller_with_certificate_of_another_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1"), client_ca=authority.file)) as server:
        foreign = authority.issue("mail.local", ca=trustme.CA())
        error = await failing(server, Tls(ca=authority.file, **foreign))
    assert error.code in {Code.UNAUTHENTICATED, Code.UNAVAILABLE}
    assert "check that Tls(cert=..., key=...) has one of its CA" in error.message


async def test_renewed_certificate_is_served_without_a_restart(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files = authority.issue("127.0.0.1")
    async with serving(Tls(**files)) as server:

        async def serial() -> object:
            context = ssl.create_default_context(cafile=str(authority.file))
            _, writer = await asyncio.open_connection("127.0.0.1", server._port, ssl=context)
            found = writer.get_extra_info("peercert")["serialNumber"]
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
            return found

        first = await serial()
        renewed = authority.issue("127.0.0.1")
        shutil.copy(renewed["cert"], files["cert"])  # the key has not come yet: the pair does not fit
        assert await serial() == first
        assert "the former ones stay in force" in caplog.text
        shutil.copy(renewed["key"], files["key"])
        second = await serial()
        assert second != first
        assert await serial() == second


async def test_renewed_ca_is_trusted_by_a_running_client(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    following, trusted = Authority(tmp_path / "next"), tmp_path / "trusted.pem"
    shutil.copy(authority.file, trusted)
    context = client_context(Tls(ca=trusted))
    async with serving(Tls(**following.issue("127.0.0.1"))) as server, channel_to(server.address, tls=context) as channel:
        with pytest.raises(Error, match="not trusted"):
            await get(channel)
        trusted.write_bytes(authority.file.read_bytes() + following.file.read_bytes())
        assert (await get(channel)).order_id == "7"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cert": "a"}, "cert and key together"),
        ({"client_ca": "a"}, "give the server its own"),
        ({"cert": "missing.pem", "key": "missing.key"}, r"'missing.pem' cannot be opened \(No such file"),
    ],
)
def test_wrong_settings_are_refused_at_start(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        server_context(Tls(**settings))


def test_wrong_files_are_refused_at_start(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue("a.local"), authority.issue("b.local")
    with pytest.raises(SetupError, match="does not belong to the certificate"):
        server_context(Tls(one["cert"], other["key"]))
    (tmp_path / "text").write_text("no PEM")
    with pytest.raises(SetupError, match="cannot be read: write both as PEM"):
        server_context(Tls(tmp_path / "text", one["key"]))
    with pytest.raises(SetupError, match=r"CA file .* cannot be read"):
        server_context(Tls(**one, client_ca=tmp_path / "text"))
    locked = tmp_path / "locked.key"
    key = load_pem_private_key(one["key"].read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(SetupError, match="is encrypted"):
        server_context(Tls(one["cert"], locked))


async def test_drain_does_not_wait_for_a_handshake_that_never_ends(authority: Authority) -> None:
    async with serving(Tls(**authority.issue("127.0.0.1"))) as server:
        with socket.create_connection(("127.0.0.1", server._port)):
            await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                await server.drain(0.1)


async def who(ctx: Context, request: Find) -> Found:
    return Found(order=request.order, text=ctx.identity.subject if ctx.identity else "nobody")


async def test_app_serves_https_and_knows_callers_by_certificate(authority: Authority, tmp_path: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def look(ctx: Context, event: Placed) -> None:
        await told.put((await ctx.call(Orders.find, Find(order=event.order))).text)

    tls = Tls(**authority.issue("127.0.0.1"), client_ca=authority.file, ca=authority.file)
    layers = [Tracing(), Deadline(), MtlsIdentity(same_process="this app")]
    app = app_of(tmp_path, orders_service(find=who), reacting("mail", look), tls=tls, middleware=layers)
    mail = Tls(ca=authority.file, **authority.issue_svid(SPIFFE))
    async with app, Client(addresses=app.address, tls=mail) as client:
        assert app.address.startswith("https://")
        assert (await client.call(Orders.find, Find(order="7"))).text == SPIFFE
        await client.call(Orders.place, Place(order="7", note="n"))
        async with asyncio.timeout(10):
            assert await told.get() == "this app"  # calls inside the process need no certificate, and nobody else gets in there
        async with Client(addresses=app.address, tls=Tls(ca=authority.file)) as stranger:
            with pytest.raises(Error) as caught:
                await stranger.call(Orders.find, Find(order="7"))
            assert caught.value.code is Code.UNAUTHENTICATED


async def test_settings_come_from_the_environment(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = authority.issue("127.0.0.1")
    for name, file in (("CERT", files["cert"]), ("KEY", files["key"]), ("CA", authority.file)):
        monkeypatch.setenv(f"LINKSPAN_TLS_{name}", str(file))
    app = app_of(tmp_path, orders_service())
    assert app.settings()["tls"] == "on"
    async with app, app.client() as client, Client(addresses=app.address, tls=Tls(ca=authority.file)) as other:
        for each in (client, other):
            assert await each.call(Orders.find, Find(order="7")) == Found(order="7")
