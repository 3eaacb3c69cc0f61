import errno
import sqlite3

import pytest

from server.errors import StorageError, StorageFull
from server.storage.disk_errors import disk_errors


def sqlite_error(code: int, message: str = "odd") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite_error(sqlite3.SQLITE_FULL),
        sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE),
    ],
)
def test_a_full_disk_is_told_from_a_broken_one(error: Exception) -> None:
    with pytest.raises(StorageFull), disk_errors():
        raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (sqlite_error(sqlite3.SQLITE_NOTADB), "damaged"),
        (sqlite_error(sqlite3.SQLITE_IOERR_CORRUPTFS), "cannot be used"),
        (sqlite_error(sqlite3.SQLITE_CORRUPT_VTAB), "damaged"),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), "another program"),
        (OSError(errno.EIO, "Input/output error", "/secret/place"), "Input/output error"),
    ],
)
def test_the_message_says_what_is_wrong(error: Exception, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught, disk_errors():
        raise error

    assert not isinstance(caught.value, StorageFull)
    assert "secret" not in caught.value.message


def test_our_own_mistakes_pass() -> None:
    with pytest.raises(sqlite3.IntegrityError), disk_errors():
        raise sqlite3.IntegrityError("UNIQUE constraint failed")
