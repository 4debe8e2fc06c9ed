"""A message whose content is in the blob place: it is fetched when the message is about to be handled, and forgotten with it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from linkspan.errors import Error
from linkspan.incoming.work import context_of

if TYPE_CHECKING:
    from linkspan.context import Home
    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Binding, Work

__all__ = ["begin_large"]


async def begin_large(consumer: Consumer, home: Home, work: Work, binding: Binding) -> None:
    """Fetch, decode, and handle. What is held keeps its reference: letters and outbox rows never have the content."""
    work.started = home.runtime.clock.monotonic()  # whoever drains waits for it
    reference = work.envelope.reference
    assert reference is not None  # noqa: S101 - the caller looked
    async with AsyncExitStack() as stack:
        try:
            data = await stack.enter_async_context(home.fetched(reference))
            request = binding.decode(data, work.envelope.content_type, len(data))
        except Error as error:
            consumer.retrying.failed(work, error)
            return
        rest = consumer.run(work, binding, context_of(home, work, binding), request)
        if rest is not None:
            await rest
