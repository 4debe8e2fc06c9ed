"""TLS on the gRPC port: real certificates, both ways, and the caller's identity out of its own."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest

from linkspan import Client, Code, Context, Error, SetupError, Tls
from linkspan.middleware import Deadline, MtlsIdentity, Tracing
from tests.integration.test_direct_tls import SPIFFE, Authority, authority as authority_of
from tests.unit.app_shop import Find, Found, Orders, app_of, orders_service

if TYPE_CHECKING:
    from pathlib import Path

authority = authority_of
LAYERS = [Tracing(), Deadline()]


def served(target: str) -> str:
    """Return the certificate that the server presents to a new connection."""
    host, _, port = target.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


async def who(ctx: Context, request: Find) -> Found:
    return Found(order=request.order, text=ctx.identity.subject if ctx.identity else "nobody")


async def test_calls_travel_by_tls(authority: Authority, tmp_path: Path) -> None:
    tls = Tls(**authority.issue("127.0.0.1"))
    async with app_of(tmp_path, orders_service(find=who), grpc="127.0.0.1:0", tls=tls) as app:
        assert app.grpc_address.startswith("grpcs://")
        async with Client(addresses=app.grpc_address, tls=Tls(ca=authority.file)) as client:
            assert (await client.call(Orders.find, Find(order="7"))).order == "7"
        for address, trusted in ((app.grpc_address, Tls()), (app.grpc_address.replace("grpcs", "grpc"), None)):  # unknown CA; no TLS at all
            async with Client(addresses=address, tls=trusted) as client:
                with pytest.raises(Error) as caught:
                    await client.call(Orders.find, Find(order="7"), timeout=2)
                assert caught.value.code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


async def test_certificate_says_who_calls(authority: Authority, tmp_path: Path) -> None:
    tls = Tls(**authority.issue("127.0.0.1"), client_ca=authority.file)
    app = app_of(tmp_path, orders_service(find=who), grpc="127.0.0.1:0", tls=tls, middleware=[*LAYERS, MtlsIdentity(same_process="own")])
    async with app:
        known = Tls(**authority.issue("mail.local"), ca=authority.file)
        async with Client(addresses=app.grpc_address, tls=known) as client:
            assert (await client.call(Orders.find, Find(order="7"))).text == "mail.local"
        async with Client(addresses=app.grpc_address, tls=Tls(ca=authority.file)) as stranger:
            with pytest.raises(Error) as caught:
                await stranger.call(Orders.find, Find(order="7"), timeout=2)
            assert caught.value.code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


async def test_spiffe_id_is_read(authority: Authority, tmp_path: Path) -> None:
    tls = Tls(**authority.issue("127.0.0.1"), client_ca=authority.file)
    app = app_of(tmp_path, orders_service(find=who), grpc="127.0.0.1:0", tls=tls, middleware=[*LAYERS, MtlsIdentity(same_process="own")])
    async with app, Client(addresses=app.grpc_address, tls=Tls(**authority.issue_svid(SPIFFE), ca=authority.file)) as client:
        assert (await client.call(Orders.find, Find(order="7"))).text == SPIFFE


async def test_grpcio_peer_and_renewed_files(authority: Authority, tmp_path: Path) -> None:
    """A plain grpcio client, and a certificate that is renewed while the server runs: the next connection gets the new one."""
    files = authority.issue("127.0.0.1")
    async with app_of(tmp_path, orders_service(find=who), grpc="127.0.0.1:0", tls=Tls(**files)) as app:
        target = app.grpc_address.removeprefix("grpcs://")
        seen: list[str] = []
        for _ in range(2):
            seen.append(await asyncio.to_thread(served, target))
            credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
            async with grpc.aio.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                call = channel.unary_unary(Orders.find.path)(Find(order="7").to_binary())
                assert Found.from_binary(await call).order == "7"
            renewed = authority.issue("127.0.0.1")
            files["key"].write_bytes(renewed["key"].read_bytes())
            files["cert"].write_bytes(renewed["cert"].read_bytes())
        assert seen[0] != seen[1]


async def test_wrong_files_end_the_start(tmp_path: Path) -> None:
    missing = Tls(cert=tmp_path / "no.pem", key=tmp_path / "no.key")
    with pytest.raises(SetupError, match="cannot be opened"):
        async with app_of(tmp_path, orders_service(), grpc="127.0.0.1:0", tls=missing):
            pass
