"""Lets go of files, vector stores and responses whose time has come, minute by minute."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn

from server.errors import StorageError
from server.rag.uninterrupted import uninterrupted
from server.services.library import Library

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0


async def expire_for_ever(library: Library) -> NoReturn:
    """Call `expire` once a minute, whatever happens."""
    while True:
        try:
            await uninterrupted(expire(library, now=int(time.time())))
        except StorageError as exc:
            logger.warning("nothing expires", extra={"reason": exc.message})
        except Exception:
            logger.exception("nothing expires")
        await asyncio.sleep(INTERVAL_S)


async def expire(library: Library, *, now: int) -> None:
    """Delete files and responses past their time, everywhere, and end stores past theirs. `now` is Unix time.

    Bytes of a file that cannot be removed stay until the next start: nothing knows of them any more.

    Raises:
        StorageError: Nothing has expired, or no response has; the next call does it.
    """
    expired = await library.documents.expire(now)
    for change in expired.changes:
        library.shelf.apply(change)
    library.ingestion.cancel(
        lambda document: document.file_id in expired.file_ids or document.store_id in expired.store_ids
    )
    for store_id in expired.store_ids:
        library.reindexing.cancel(store_id)
        library.shelf.drop(store_id)
        library.sweeper.wake()
    for file_id in expired.file_ids:
        try:
            await library.files.delete(file_id)
        except StorageError as exc:
            logger.warning(
                "bytes of an expired file stay until the next start", extra={"file": file_id, "reason": exc.message}
            )
    num_responses = await library.responses.expire(now)
    if expired.file_ids or expired.store_ids or num_responses:
        counts = {"files": len(expired.file_ids), "stores": len(expired.store_ids), "responses": num_responses}
        logger.info("expired", extra=counts)
