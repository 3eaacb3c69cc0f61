"""Tables of words as databases of an older schema have them, two for each store: the terms of chunks replace them.

SQLite reads the whole schema again after each change of it, in every connection, so tables that come and go with
stores made each store that is made or deleted dearer for all that there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from server.rag.rows import chunks

_PREFIXES = ("chunks_terms_", "chunks_fts_")
"""The first kind reads the second one."""


def replace_some(db: sqlite3.Connection, is_over: Callable[[], bool]) -> bool:
    """Make terms of what has none yet, then drop the tables; until `is_over`. False: there is nothing left to do.

    What was done is found done after a crash.
    """
    while (store_row := _any_store(db)) is not None:
        for document_id in _documents_without_terms(db, store_row):
            _make_terms(db, document_id)
            if is_over():
                return True
        for prefix in _PREFIXES:
            db.execute(f"DROP TABLE IF EXISTS {prefix}{store_row}")
        if is_over():
            return True
    return False


def _any_store(db: sqlite3.Connection) -> int | None:
    """Return a store that has tables of its own, or had a store that is gone."""
    query = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE chunks_fts_%' LIMIT 1"
    found = db.execute(query).fetchone()
    return None if found is None else int(found[0].rpartition("_")[2])


def _documents_without_terms(db: sqlite3.Connection, store_row: int) -> list[int]:
    query = "SELECT DISTINCT document_id FROM chunks WHERE store_row = ? AND terms IS NULL"
    return [document_id for (document_id,) in db.execute(query, (store_row,)).fetchall()]


def _make_terms(db: sqlite3.Connection, document_id: int) -> None:
    db.executemany(
        "UPDATE chunks SET num_words = ?, terms = ? WHERE id = ?",
        ((*terms, chunk_id) for chunk_id, terms in chunks.make_terms(db, document_id).items()),
    )
