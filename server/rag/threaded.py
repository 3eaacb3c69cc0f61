"""Iterators whose items take a while to make, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from server.rag.uninterrupted import uninterrupted

T = TypeVar("T")


async def threaded(items: Iterator[T]) -> AsyncIterator[T]:
    """Yield items, each of which a thread makes: one at a time, and none is in the making when this ends."""
    end = object()
    while (item := await uninterrupted(asyncio.to_thread(next, items, end))) is not end:
        yield item  # type: ignore[misc]  # which `end` is not
