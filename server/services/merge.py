"""Run several generations side by side as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from server.services.generation import ChatEvent
from server.types import Started

Indexed = tuple[int, ChatEvent]
_Queue = asyncio.Queue[Indexed | Exception | None]


async def merge(streams: Sequence[AsyncGenerator[ChatEvent, None]]) -> AsyncGenerator[Indexed, None]:
    """Yield (stream index, event) as events come, but every `Started` before anything else.

    The first error of any stream ends all of them. Closing the merged stream closes them too.
    """
    if len(streams) == 1:  # nearly always, and then nothing stands between the stream and its reader
        async with aclosing(streams[0]) as events:
            async for event in events:
                yield 0, event
        return
    # One slot for each stream: a reader that stops reading stops the streams, not our memory.
    queue: _Queue = asyncio.Queue(maxsize=len(streams))
    pumps = [asyncio.create_task(_pump(index, stream, queue)) for index, stream in enumerate(streams)]
    try:
        held: list[Indexed] = []
        num_waiting = num_open = len(streams)
        while num_open:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            elif isinstance(item[1], Started):
                num_waiting -= 1
                yield item
            else:
                held.append(item)
            if num_waiting == 0:
                for ready in held:
                    yield ready
                held.clear()
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(index: int, stream: AsyncGenerator[ChatEvent, None], queue: _Queue) -> None:
    """Move a stream into the queue; None marks its end. Each stream is closed by the task that iterates it."""
    try:
        async with aclosing(stream):
            async for event in stream:
                await queue.put((index, event))
    except Exception as exc:  # the reader raises it
        await queue.put(exc)
    else:
        await queue.put(None)
