"""Saves indexes in the background, lets go of those that nobody has asked for lately, and removes files of lost stores.

A file is of use only while it holds all of its store, so an index is saved once its store has rested for `QUIET_S`:
at once then if a good part of it has changed, else `MAX_UNSAVED_S` after the first change. So a store that is filled
all the time is not written again and again, and one that changes a little now and then is written every few minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from server.rag.index_shelf import Held, IndexShelf

logger = logging.getLogger(__name__)

QUIET_S = 10.0
MAX_UNSAVED_S = 300.0
MUCH = 0.05
"""Of an index's rows: so many changed ones are saved as soon as the store rests."""

PAUSE_S = 1.0
"""Between two rounds, however much happens."""
FULL_PAUSE_S = 10.0
"""Between two tries to make room where all indexes are in use."""


class IndexKeeper:
    """Keeps one shelf, on its event loop."""

    def __init__(self, shelf: IndexShelf, *, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_bytes` is what all indexes may have in memory; the one that was used last stays, however large."""
        self._shelf = shelf
        self._max_bytes = max_bytes
        self._clock = clock

    async def keep_for_ever(self) -> NoReturn:
        await self._shelf.delete_lost()
        while True:
            self._shelf.is_changed.clear()
            wait_s: float | None = MAX_UNSAVED_S
            try:
                wait_s = await self.keep()
            except Exception:
                logger.exception("indexes are not kept for now")
            await asyncio.sleep(PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._shelf.is_changed.wait()

    async def keep(self) -> float | None:
        """Do what is due now; return the seconds until more will be, None if nothing is in sight."""
        await self._shelf.delete_dropped()
        has_room = await self._make_room()  # first: to save takes memory
        for held in self._shelf.held():
            if self._due_in_s(held) == 0:
                await self._shelf.save(held.store_id)
        waits = [wait_s for held in self._shelf.held() if (wait_s := self._due_in_s(held)) is not None]
        if not has_room:
            waits.append(FULL_PAUSE_S)
        return min(waits, default=None)

    def _due_in_s(self, held: Held) -> float | None:
        """When to save an index; None: its files have all."""
        if held.unsaved_since is None:
            return None
        is_much = held.num_unsaved >= MUCH * held.num_chunks
        due_at = max(held.changed_at + QUIET_S, held.unsaved_since + (0 if is_much else MAX_UNSAVED_S))
        return max(0.0, due_at - self._clock())

    async def _make_room(self) -> bool:
        """Let go of indexes, the one first that was used longest ago; false if that is not enough."""
        by_use = sorted(self._shelf.held(), key=lambda held: held.last_use)
        num_bytes = sum(held.num_bytes for held in by_use)
        for held in by_use[:-1]:
            if num_bytes <= self._max_bytes:
                break
            if await self._shelf.evict(held.store_id):
                num_bytes -= held.num_bytes
        return num_bytes <= self._max_bytes or len(by_use) == 1
