"""zstd with limits: the standard library's from Python 3.14 on, before that its backport."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Packer", "dictionary_id", "train", "unpacked"]

LEVEL: Final = 1
"""The fastest: higher ones made batches of events no smaller."""
_WINDOW: Final = 23
"""Power of two of the memory in bytes that a sender may make us use: 8 MiB, as RFC 8878 asks of every reader."""


def _library() -> Any:
    """Import what is there; only where something is packed, so that a start does not wait for it."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - see above
    else:
        from backports import zstd  # noqa: PLC0415 - see above
    return zstd


@lru_cache(maxsize=64)
def _dictionary(content: bytes) -> Any:
    """Prepare a dictionary once."""
    return _library().ZstdDict(content)


def dictionary_id(content: bytes) -> int:
    """Return the number that names a dictionary in what is packed with it. Raises `SetupError` where it is none."""
    try:
        return int(_dictionary(content).dict_id)
    except ValueError as error:
        raise SetupError("A zstd dictionary cannot be read: give the bytes that `zstd --train` wrote.") from error


def train(samples: Sequence[bytes], size: int) -> bytes:
    """Make a dictionary of about `size` bytes from what messages look like. Raises `SetupError` where they are too few or too alike."""
    zstd = _library()
    try:
        return bytes(zstd.train_dict(samples, size).dict_content)
    except (zstd.ZstdError, ValueError) as error:
        raise SetupError(f"No dictionary can be made of {len(samples)} samples ({error}): collect more of them.") from error


class Packer:
    """Compresses one message after another; each can be read by itself. What is damaged on its way is noticed by a checksum."""

    def __init__(self, dictionary: bytes = b"") -> None:
        zstd = _library()
        parameter = zstd.CompressionParameter
        options = {parameter.compression_level: LEVEL, parameter.checksum_flag: 1}
        self._compressor = zstd.ZstdCompressor(options=options, zstd_dict=_dictionary(dictionary) if dictionary else None)

    def packed(self, content: bytes) -> bytes:
        """Compress."""
        compressor = self._compressor
        return bytes(compressor.compress(content, mode=compressor.FLUSH_FRAME))


def unpacked(data: bytes, limit: int, dictionaries: Sequence[bytes] = ()) -> bytes:
    """Decompress one frame of at most `limit` bytes of content, using memory for no more.

    Raises `Error`: INVALID_ARGUMENT for what is damaged, cut off or too large, FAILED_PRECONDITION for a dictionary that is not given.
    """
    zstd = _library()
    try:
        frame = zstd.get_frame_info(data)
        if frame.decompressed_size is not None and frame.decompressed_size > limit:
            raise _too_large(limit)
        decompressor = zstd.ZstdDecompressor(
            zstd_dict=_named(frame.dictionary_id, dictionaries) if frame.dictionary_id else None,
            options={zstd.DecompressionParameter.window_log_max: _WINDOW},
        )
        content = bytes(decompressor.decompress(data, limit + 1))
    except zstd.ZstdError as error:
        raise Error(Code.INVALID_ARGUMENT, "The content is no zstd frame, or was damaged on its way: send it again.") from error
    if len(content) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        raise Error(Code.INVALID_ARGUMENT, "The content is cut off, or something follows it: send one whole zstd frame.")
    return content


def _named(number: int, dictionaries: Sequence[bytes]) -> Any:
    for content in dictionaries:
        if dictionary_id(content) == number:
            return _dictionary(content)
    text = f"The content needs the zstd dictionary {number}, which is not here: deploy the contract that has it, then redrive."
    raise Error(Code.FAILED_PRECONDITION, text)


def _too_large(limit: int) -> Error:
    return Error(Code.INVALID_ARGUMENT, f"The content has more than {limit} bytes when it is unpacked: send smaller batches.")
