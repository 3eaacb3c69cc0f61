"""Proves that the bytes of every upload are there, by looking at the files themselves."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from server.errors import StorageError
from server.rag.rows.stores import NOBODY
from server.storage.data_layout import DataLayout


def check_uploads(data_dir: Path) -> list[str]:
    """Say what is wrong with uploads, for people: those whose bytes are missing, or not as many as were sent.

    Reads only, also beside a running server. Bytes without a row are no problem: the next start sweeps them.

    Raises:
        StorageError: The database cannot be read.
    """
    layout = DataLayout(data_dir)
    found = {file_id: _problem(layout.files / file_id, num_bytes) for file_id, num_bytes in _sizes(layout).items()}
    suspects = {file_id: problem for file_id, problem in found.items() if problem}
    known = _sizes(layout) if suspects else {}  # a server deletes the row first, perhaps since it was read
    return [f"file {file_id}: {problem}" for file_id, problem in suspects.items() if file_id in known]


def _sizes(layout: DataLayout) -> dict[str, int]:
    try:
        with closing(sqlite3.connect(f"{layout.database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return dict(db.execute("SELECT id, num_bytes FROM files WHERE tenant != ?", (NOBODY,)).fetchall())
    except sqlite3.Error as exc:
        raise StorageError(f"the database cannot be read: {exc}") from exc


def _problem(path: Path, num_bytes: int) -> str | None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "its bytes are missing"
    return None if found == num_bytes else f"it has {found} bytes, expected {num_bytes}"
