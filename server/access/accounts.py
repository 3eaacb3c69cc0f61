"""The database of keys and usage while a server runs: opened, tried again if need be, and watched for changed keys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.access import key_store
from server.access.key_ring import KeyRing
from server.access.policy import has_keys
from server.errors import StorageError, StorageUnavailable
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS

logger = logging.getLogger(__name__)

OPENING_S = 5.0
"""A start waits so long; until the keys are read, nobody is let in."""

RETRY_S = 30.0
"""Between two tries to open it."""

CHECK_S = 0.5
"""So often the keys are looked after: another process may have revoked one. Costs a thread some 30 µs."""

_CLOSED = "keys and usage are not available; the server's log says why"


class Accounts:
    """Keeps the database open, and the ring as the database has it.

    Attributes:
        ring: Who may do what.
    """

    def __init__(self, path: Path) -> None:
        self.ring = KeyRing()
        self._path = path
        self._database: Database | None = None
        self._change_number = -1

    @property
    def database(self) -> Database:
        """Raises StorageUnavailable while it is not open."""
        if self._database is None:
            raise StorageUnavailable(_CLOSED)
        return self._database

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep it open for as long as the caller stays. What cannot be opened is logged, and tried again."""
        is_tried = asyncio.Event()
        keeping = asyncio.create_task(self._keep_open(is_tried))
        trying = asyncio.create_task(is_tried.wait())
        try:
            await asyncio.wait((trying,), timeout=OPENING_S)
            yield
        finally:
            trying.cancel()
            keeping.cancel()
            await asyncio.wait((keeping,))

    async def _keep_open(self, is_tried: asyncio.Event) -> None:
        while True:
            try:
                await self._open_and_watch(is_tried)
            except StorageError as exc:
                logger.error("keys and usage are not available", extra={"reason": exc.message})
            except Exception:  # a bug, which must not make keys good for ever
                logger.exception("keys and usage are not available")
            await self._do_without()
            is_tried.set()
            await asyncio.sleep(RETRY_S)

    async def _do_without(self) -> None:
        """Without a file there are no keys, nor in one that was never written to; else nobody knows.

        Keys that are known stay so: they were read, and what has become of the file since does not end them.
        """
        if self.ring.is_read and self.ring.has_keys:
            return
        try:
            is_unknown = await asyncio.to_thread(has_keys, self._path)
        except StorageError:
            is_unknown = True
        if is_unknown:
            self.ring.shut(StorageUnavailable(_CLOSED))
        else:
            self.ring.replace(())

    async def _open_and_watch(self, is_tried: asyncio.Event) -> None:
        """The keys come first. Usage of years can take long to look through; none is written before that is done."""
        opening = asyncio.create_task(
            asyncio.to_thread(Database.open, self._path, ACCOUNT_MIGRATIONS, checked_table=key_store.TABLE)
        )
        watching: asyncio.Task[None] | None = None
        try:
            database = await asyncio.shield(opening)
            await self._read_keys(database)
            watching = asyncio.create_task(self._watch(database))
            await self._check(database)
            self._database = database
            is_tried.set()
            await watching
        finally:
            self._database = None
            if watching is not None:
                watching.cancel()
                await asyncio.wait((watching,))
            await _close(opening)

    async def _check(self, database: Database) -> None:
        begun_at = time.monotonic()
        await database.check()
        logger.info("keys and usage checked", extra={"duration_s": round(time.monotonic() - begun_at, 3)})

    async def _watch(self, database: Database) -> None:
        is_readable = True
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                if await database.read(key_store.change_number) != self._change_number:
                    await self._read_keys(database)
            except StorageError as exc:
                if is_readable:
                    logger.warning("keys cannot be read; those known stay as they are", extra={"reason": exc.message})
                is_readable = False
            except Exception:  # a bug, which must not make keys good for ever
                if is_readable:
                    logger.exception("keys cannot be read; those known stay as they are")
                is_readable = False
            else:
                is_readable = True

    async def _read_keys(self, database: Database) -> None:
        self._change_number, keys = await database.read(lambda db: (key_store.change_number(db), key_store.select(db)))
        self.ring.replace(keys)
        logger.info("keys read", extra={"keys": len(keys)})


async def _close(opening: asyncio.Task[Database]) -> None:
    """Close a database; one that is still being opened when the server stops, as soon as it is open."""
    await asyncio.wait((opening,))
    if opening.exception() is None:
        await asyncio.to_thread(opening.result().close)
