"""The database of keys and usage while a server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.errors import StorageError, StorageUnavailable
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS

logger = logging.getLogger(__name__)


class Accounts:
    """Keeps the database open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """Raises StorageUnavailable while it is not open."""
        if self._database is None:
            raise StorageUnavailable("keys and usage are not available; the server's log says why")
        return self._database

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep it open for as long as the caller stays."""
        try:
            self._database = await asyncio.to_thread(Database.open, self._path, ACCOUNT_MIGRATIONS)
        except StorageError as exc:
            logger.error("keys and usage are not available", extra={"reason": exc.message})
        try:
            yield
        finally:
            database, self._database = self._database, None
            if database is not None:
                await asyncio.to_thread(database.close)
