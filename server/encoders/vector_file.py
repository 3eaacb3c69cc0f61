"""The second tier of the vector cache: rows in a SQLite file, found again after a restart.

Never a reason to fail: what cannot be read counts as unknown, what cannot be written is not kept, both are logged.
Writing has a thread of its own; reading happens on the caller's. Several models, and processes, may share a file.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from server.encoders.encoder import Rows
from server.errors import LoadFailed
from server.types import ModelFacts

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 30
"""Some 600,000 vectors of 384 numbers. Beyond, the rows that were written first go."""

_MAX_QUEUED_ROWS = 10_000
_ROWS_PER_COMMIT = 1000
_ROWS_PER_QUERY = 500  # SQLite allows 999 variables in its oldest builds

_KERNEL_DETAILS = (
    *("runtime", "device", "dtype", "kernel"),  # of torch and ONNX
    *("build", "gpu_layers", "repacked_weights"),  # of llama.cpp
)
"""What rows depend on, of what a model tells of itself under `details`."""

_Entry = tuple[bytes, bytes]


class VectorFile:
    """Rows of one model in a file. `fingerprint` tells models, and kernels, apart whose rows must not be mixed."""

    def __init__(self, path: Path, fingerprint: str, *, row_shape: tuple[int, ...], max_bytes: int = MAX_FILE_BYTES):
        """Open or make the file.

        Raises:
            LoadFailed: It cannot be made, or is something else than a cache.
        """
        self._path = path
        self._fingerprint = fingerprint.encode()
        self._row_shape = row_shape
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # of the connection that reads
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._open()
            writer = self._open()
        except (OSError, sqlite3.Error) as exc:
            raise LoadFailed(f"cache_file {path.name} cannot be used: {exc}; move it away or name another one") from exc
        self._writes: queue.Queue[_Entry | None] = queue.Queue(_MAX_QUEUED_ROWS)
        self._thread = threading.Thread(target=self._write_all, args=(writer,), name="vector-file", daemon=True)
        self._thread.start()

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Rows]:
        """Return the rows that are there. Thread-safe."""
        wanted = {self._name(key): key for key in keys}
        names = list(wanted)
        rows: dict[bytes, Rows] = {}
        try:
            for start in range(0, len(names), _ROWS_PER_QUERY):
                some = names[start : start + _ROWS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT name, row FROM vectors WHERE name IN ({marks})"  # noqa: S608  # only question marks
                with self._lock:
                    found = self._reader.execute(query, some).fetchall()
                rows.update((wanted[name], self._row(content)) for name, content in found)
        except (sqlite3.Error, ValueError) as exc:
            logger.warning("vector cache cannot be read", extra={"error": str(exc)})
        return rows

    def write(self, key: bytes, row: Rows) -> None:
        """Let a row be written soon; dropped if the disk cannot follow. Any thread, never waits."""
        try:
            self._writes.put_nowait((self._name(key), row.astype("<f4").tobytes()))
        except queue.Full:
            logger.debug("vector cache writes too slowly")

    def close(self) -> None:
        """Write what is left, and close. Call nothing afterwards."""
        self._writes.put(None)
        self._thread.join()
        self._reader.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=5)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last rows, but not the file
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (name BLOB NOT NULL UNIQUE, row BLOB NOT NULL)")
        return connection

    def _name(self, key: bytes) -> bytes:
        return hashlib.sha256(self._fingerprint + key).digest()

    def _row(self, content: bytes) -> Rows:
        return np.frombuffer(content, "<f4").astype(np.float32, copy=False).reshape(self._row_shape)

    # ---- the writing thread

    def _write_all(self, connection: sqlite3.Connection) -> None:
        with closing(connection):
            is_open = True
            while is_open:
                entries, is_open = self._next_entries()
                try:
                    self._commit(connection, entries)
                except sqlite3.Error as exc:
                    logger.warning("vector cache cannot be written", extra={"error": str(exc)})

    def _next_entries(self) -> tuple[list[_Entry], bool]:
        """Wait for rows, and take all that have come; false when there will be no more."""
        entries: list[_Entry] = []
        entry = self._writes.get()
        while entry is not None:
            entries.append(entry)
            if len(entries) == _ROWS_PER_COMMIT:
                return entries, True
            try:
                entry = self._writes.get_nowait()
            except queue.Empty:
                return entries, True
        return entries, False

    def _commit(self, connection: sqlite3.Connection, entries: list[_Entry]) -> None:
        with connection:  # a transaction
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", entries)
            if self._is_full(connection):
                connection.execute(
                    "DELETE FROM vectors WHERE rowid IN "
                    "(SELECT rowid FROM vectors ORDER BY rowid LIMIT (SELECT 1 + count(*) / 10 FROM vectors))"
                )

    def _is_full(self, connection: sqlite3.Connection) -> bool:
        [(num_pages,)] = connection.execute("PRAGMA page_count")
        [(num_free,)] = connection.execute("PRAGMA freelist_count")
        [(page_bytes,)] = connection.execute("PRAGMA page_size")
        return bool((num_pages - num_free) * page_bytes > self._max_bytes)


def fingerprint_of(weights_path: Path, facts: ModelFacts) -> str:
    """Name all that rows depend on besides tokens: the weights (name, size and time of each file) and the kernel."""
    files = [path for path in sorted(weights_path.rglob("*")) if path.is_file()] or [weights_path]
    listing = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    # Without what is said in brackets: how a kernel was chosen does not change what it computes.
    kernel = [facts.details.get(key, "").partition(" (")[0] for key in _KERNEL_DETAILS]
    return hashlib.sha256(repr((listing, kernel, facts.dimensions)).encode()).hexdigest()
