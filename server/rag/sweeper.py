"""Removes in the background what is deleted already, and moves what a reindex has left where it does not belong.

In slices: whoever else writes waits for one of them at the most. What a killed server has left of it is gone on with.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from typing import NoReturn

from server.errors import StorageError
from server.rag.index_shelf import IndexShelf
from server.rag.rows import sweeps
from server.storage.database import Database

logger = logging.getLogger(__name__)

SLICE_S = 0.01
PAUSE_S = 0.03
"""Between two slices: the disk is others' as well."""

RETRY_S = 30.0


class Sweeper:
    """Sweeps one data directory, on its event loop."""

    def __init__(self, database: Database, shelf: IndexShelf, *, pause_s: float = PAUSE_S) -> None:
        """`shelf` is told of stores that nothing is left of."""
        self._database = database
        self._shelf = shelf
        self._pause_s = pause_s
        self._is_wanted = asyncio.Event()
        self._is_wanted.set()

    async def recover(self) -> None:
        """Note what an earlier process has left half done. Before anything else works on the directory."""
        await self._database.write(sweeps.begin_lost, use_reserve=True)

    def wake(self) -> None:
        """Say that there is something to sweep."""
        self._is_wanted.set()

    async def sweep_for_ever(self) -> NoReturn:
        """Sweep whenever there is something, whatever happens."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            try:
                await self.sweep()
            except StorageError as exc:
                logger.warning("deleted contents stay for now", extra={"reason": exc.message})
                await asyncio.sleep(RETRY_S)
                self.wake()
            except Exception:
                logger.exception("deleted contents stay until the next start")

    async def sweep(self) -> None:
        """Sweep all that there is now.

        Raises:
            StorageError: The rest is left to the next call.
        """
        while True:
            done = await self._database.write(_sweep_slice, use_reserve=True)
            for store_id in done.swept_ids:
                self._shelf.drop(store_id)
            if done.is_last:
                return
            await asyncio.sleep(self._pause_s)


def _sweep_slice(db: sqlite3.Connection) -> sweeps.Slice:
    deadline = time.monotonic() + SLICE_S
    return sweeps.sweep(db, lambda: time.monotonic() > deadline)
