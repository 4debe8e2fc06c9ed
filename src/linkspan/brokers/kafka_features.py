"""Which features a Kafka cluster has switched on: librdkafka does not tell, so one request of the protocol is asked by hand.

ApiVersions, key 18, version 3 (https://kafka.apache.org/protocol, KIP-584): answered before any login. Finalized features stand in
the tagged fields behind the answer.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["features", "read_features"]

ASK = 3.0
"""Seconds for the answer."""
MAX_ANSWER = 1 << 20
_FINALIZED = 2
_NAME = b"\x09linkspan\x020\x00"  # compact strings: client name and version; no tagged fields
_REQUEST = struct.pack(">hhih", 18, 3, 1, -1) + b"\x00" + _NAME


async def features(host: str, port: int, tls: Mapping[str, str] | None) -> dict[str, int]:
    """Return the finalized features of a broker's cluster with their levels; `tls` are librdkafka's `ssl.*` options where it is used.

    Raises OSError, TimeoutError or ValueError where no sensible answer came.
    """
    context = _context(tls) if tls is not None else None
    async with asyncio.timeout(ASK):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            if not 0 < size <= MAX_ANSWER:
                raise ValueError(size)
            return read_features(await reader.readexactly(size))
        except asyncio.IncompleteReadError as error:
            raise ValueError(len(error.partial)) from error
        finally:
            writer.close()


def _context(tls: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.get("ssl.ca.location"))
    if "ssl.certificate.location" in tls:
        context.load_cert_chain(tls["ssl.certificate.location"], tls.get("ssl.key.location"), tls.get("ssl.key.password"))
    return context


def read_features(answer: bytes) -> dict[str, int]:
    """Read the body of an ApiVersions answer, version 3. Raises ValueError for anything else."""
    try:
        return _Reader(answer).finalized()
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(len(answer)) from error


class _Reader:
    """Reads the protocol's compact types."""

    def __init__(self, answer: bytes) -> None:
        self._bytes = answer
        self._at = 0

    def finalized(self) -> dict[str, int]:
        """Read on from the correlation id."""
        self._at = 4
        if self._number(">h", 2) != 0:
            raise ValueError(len(self._bytes))
        for _ in range(self._varint() - 1):
            self._at += 6
            self._skip_tags()
        self._at += 4  # throttle time
        found: dict[str, int] = {}
        for _ in range(self._varint()):
            tag, size = self._varint(), self._varint()
            end = self._at + size
            if tag == _FINALIZED:
                for _ in range(self._varint() - 1):
                    name = self._text()
                    found[name] = self._number(">h", 2)
                    self._at += 2
                    self._skip_tags()
            self._at = end
        return found

    def _number(self, layout: str, size: int) -> int:
        number: int = struct.unpack_from(layout, self._bytes, self._at)[0]
        self._at += size
        return number

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._bytes[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
                return number
            shift += 7

    def _text(self) -> str:
        size = self._varint() - 1
        self._at += size
        return self._bytes[self._at - size : self._at].decode()

    def _skip_tags(self) -> None:
        for _ in range(self._varint()):
            self._varint()
            size = self._varint()
            self._at += size
