"""What a tap saw, message by message: a batch is shown as what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from linkspan import envelope as envelopes
from linkspan.batch import dictionaries_of, is_batch, singles
from linkspan.errors import Error

if TYPE_CHECKING:
    from linkspan.ports import Letter, Seen

__all__ = ["batch_content", "singly"]


def singly(seen: Seen) -> list[Seen]:
    """Return the single messages of a batch; whatever else was seen, and a batch that cannot be read, as it is."""
    try:
        if not is_batch(envelopes.read(seen.headers, seen.data).content_type):
            return [seen]
        found = singles(seen.data, dictionaries_of(seen.topic))
    except Error:
        return [seen]
    last = len(found) - 1
    return [
        replace(seen, headers=single.headers, data=single.data, pending=seen.pending + last - number) for number, single in enumerate(found)
    ]


def batch_content(letter: Letter) -> str:
    """Say what a held batch holds, '' for any other letter."""
    try:
        if not is_batch(envelopes.read(letter.headers, letter.data).content_type):
            return ""
        found = singles(letter.data, dictionaries_of(letter.topic.rpartition(":")[2]))
        ids = [envelopes.read(single.headers, single.data).id for single in found]
    except Error as error:
        return f"a batch of {len(letter.data)} bytes: {error.message}"
    return f"a batch of {len(ids)} messages, {ids[0]} to {ids[-1]}: redriven, it is handled message by message"
