"""The SQLite database of the data directory: one thread writes, a few read, the event loop waits for neither.

Knows no table: callers bring their statements. One process opens a database at a time (`data_lock.py`).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from server import faults
from server.errors import StorageError
from server.storage.disk_errors import disk_errors
from server.storage.disk_room import check_room
from server.storage.schema import MIGRATIONS, read_scripts, upgrade

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""Runs in a thread, inside a transaction that it neither begins nor ends. What it returns outlives the connection."""

BUSY_TIMEOUT_S = 5.0
"""How long a transaction waits for another program, e.g. a backup, to let go of the database."""

NUM_READERS = 4

_WRITER_CACHE_KIB = 32 * 1024
_READER_CACHE_KIB = 8 * 1024
_MAX_IDLE_WAL_BYTES = 64 << 20  # a larger one, after a large transaction, is cut


class Database:
    """One writing connection, `NUM_READERS` reading ones, each used by one thread at a time."""

    def __init__(self, folder: Path, writer: sqlite3.Connection, readers: list[sqlite3.Connection]) -> None:
        """Take connections to a database in `folder` over; `open` makes them."""
        self._folder = folder
        self._writer = writer
        self._readers = readers
        self._version = 0
        self._idle_readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for reader in readers:
            self._idle_readers.put(reader)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="database-write")
        self._read_threads = ThreadPoolExecutor(len(readers), thread_name_prefix="database-read")

    @classmethod
    def open(cls, path: Path, migrations: str = MIGRATIONS, *, checked_table: str | None = None) -> Database:
        """Open the database, or make it, with its folder; check it and bring it to today's schema. Blocks meanwhile.

        Args:
            migrations: Folder of its scripts; see `schema.py`.
            checked_table: Check nothing but this, where the rest is large and can wait for `check`.

        Raises:
            StorageError: It is damaged, or of a newer version, or cannot be opened.
            StorageFull: There is no room to make or upgrade it.
        """
        with disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer = _connect(path, cache_kib=_WRITER_CACHE_KIB)
            try:
                _check(writer, checked_table)
                upgrade(writer, path, read_scripts(migrations))
                readers = [_connect(path, cache_kib=_READER_CACHE_KIB) for _ in range(NUM_READERS)]
            except BaseException:
                writer.close()
                raise
        for reader in readers:
            reader.execute("PRAGMA query_only = ON")
        return cls(path.parent, writer, readers)

    @property
    def version(self) -> int:
        """Changes before a transaction is committed, and again before its `write` returns: what was read when it was
        the same as now is what would be read now."""
        return self._version

    async def write(self, work: Work[T], *, use_reserve: bool = False, survives_power_cut: bool = True) -> T:
        """Run `work` in a transaction of its own, after those that were asked for before.

        Once this returns, what was written survives a power cut; if it raises, nothing was changed. Somebody who
        stops waiting (cancellation) does not know: the transaction may yet take place.

        Args:
            use_reserve: For what ends or deletes things: it may use the last of the disk (`disk_room.py`).
            survives_power_cut: If not, only the end of this process is survived, and the disk is not waited for.

        Raises:
            StorageFull: There is no room left; what is there stays readable.
            StorageError: The database cannot be written, or another program holds it.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        do = partial(
            self._write, work, deadline=deadline, use_reserve=use_reserve, survives_power_cut=survives_power_cut
        )
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, do)

    async def read(self, work: Work[T]) -> T:
        """Run `work`, whose statements all see the database as it is at the first of them; it cannot write.

        Raises:
            StorageError: The database cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, self._read, work)

    async def check(self) -> None:
        """Look through all of it, which takes a second for each gigabyte or so.

        Raises:
            StorageError: It is damaged, or cannot be read.
        """
        await self.read(_check)

    def close(self) -> None:
        """Let what was asked for end, and close. Blocks; call nothing afterwards."""
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        for connection in (*self._readers, self._writer):  # the last one to close empties the WAL
            connection.close()

    # ---- in threads

    def _write(self, work: Work[T], *, deadline: float, use_reserve: bool, survives_power_cut: bool) -> T:
        db = self._writer
        with disk_errors():
            if not use_reserve:
                check_room(self._folder, reusable_bytes=_free_bytes(db))
            # Whoever has waited in line does not wait as long again, or a held database would hold up a long line.
            patience_ms = max(0, round(1000 * (deadline - time.monotonic())))
            db.execute(f"PRAGMA busy_timeout = {patience_ms}")
            db.execute(f"PRAGMA synchronous = {'FULL' if survives_power_cut else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            self._version += 1
            try:
                result = work(db)
                faults.reach("db.commit")
                db.execute("COMMIT")
            finally:
                _roll_back(db)
                self._version += 1
        return result

    def _read(self, work: Work[T]) -> T:
        db = self._idle_readers.get()
        try:
            with disk_errors():
                db.execute("BEGIN")
                try:
                    return work(db)
                finally:
                    _roll_back(db)
        finally:
            self._idle_readers.put(db)


def _connect(path: Path, *, cache_kib: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute(f"PRAGMA journal_size_limit = {_MAX_IDLE_WAL_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, table: str | None = None) -> None:
    if table is not None and not db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone():
        return  # a new database
    finding, *_ = db.execute(f"PRAGMA quick_check({'1' if table is None else table})").fetchone()
    if finding != "ok":
        raise StorageError(
            f"the database is damaged ({finding}); restore a backup, or move it away to begin with an empty one"
        )


def _free_bytes(db: sqlite3.Connection) -> int:
    """Count what deleted rows have left inside the file: it does not shrink, but fills up again first."""
    [(num_pages,)] = db.execute("PRAGMA freelist_count")
    [(page_bytes,)] = db.execute("PRAGMA page_size")
    return int(num_pages * page_bytes)


def _roll_back(db: sqlite3.Connection) -> None:
    """End what is left of a transaction: nothing after a commit, and some errors end it by themselves."""
    if db.in_transaction:
        db.execute("ROLLBACK")
