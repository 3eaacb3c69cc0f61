"""What the disk and SQLite complain of, in the words of `errors.py`."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import StorageError, StorageFull

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}
# The second: the shared memory file beside a WAL could not grow, for which SQLite has no other reason.
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BUGS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise StorageFull and StorageError in place of what the disk and SQLite raise; our own mistakes pass.

    Messages name no path, and say what they can to a client; the log has the rest.
    """
    try:
        yield
    except _BUGS:
        raise
    except (sqlite3.Error, OSError) as exc:
        if _is_disk_full(exc):
            logger.warning("disk full", extra={"error": str(exc)})
            message = "no room is left on the disk of the data directory; delete files, or make room, and try again"
            raise StorageFull(message) from exc
        logger.exception("the data directory cannot be used")
        raise StorageError(_explain(exc)) from exc


def _is_disk_full(exc: sqlite3.Error | OSError) -> bool:
    if isinstance(exc, OSError):
        return exc.errno in _FULL
    code = getattr(exc, "sqlite_errorcode", 0)
    return code in _SQLITE_FULL or code & 0xFF == sqlite3.SQLITE_FULL


def _explain(exc: sqlite3.Error | OSError) -> str:
    if isinstance(exc, OSError):
        return f"the data directory cannot be used ({exc.strerror}); see the server's log"
    primary = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # without what an extended code adds
    if primary in _SQLITE_DAMAGED:
        return f"the database is damaged ({exc}); restore a backup, or move it away to begin with an empty one"
    if primary in _SQLITE_LOCKED:
        return f"another program holds the database ({exc}); end it, or try again later"
    return f"the database cannot be used ({exc}); see the server's log"
