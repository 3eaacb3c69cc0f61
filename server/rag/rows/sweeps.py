"""Removal of whole stores: marked at once, swept slice by slice, for others who write shall not wait for it.

A store that is swept is nobody's, or has expired: nobody searches it, and no job puts anything into it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from server.rag.rows import editions, lists, stores

_NUM_ROWS = 100
"""Removed between two looks at the clock: some milliseconds at the most."""

_CONTENTS = ("chunks", "parents", "texts", "pending_vectors", "pending_contexts")
"""What belongs to a document. Chunks first: without them nothing refers to the others."""


@dataclass(frozen=True)
class Slice:
    """What was done of all that is to be swept. `swept_ids` are stores that nothing is left of, or no chunks."""

    is_last: bool
    swept_ids: tuple[str, ...] = ()


def delete_store(db: sqlite3.Connection, tenant: str, store_id: str) -> None:
    """Delete a store as far as anybody can see."""
    begin(db, stores.give_away(db, tenant, store_id))


def begin(db: sqlite3.Connection, store_row: int) -> None:
    """Have the contents of a store removed, and what works on it stopped."""
    db.execute("UPDATE documents SET status = 'cancelled' WHERE store_row = ? AND status = 'in_progress'", (store_row,))
    editions.cancel_row(db, store_row)
    # An expired store may be deleted while it is swept; then its documents have to go as well.
    db.execute(
        "INSERT INTO sweeps (store_row) VALUES (?) ON CONFLICT (store_row) DO UPDATE SET last_document = 0",
        (store_row,),
    )


def begin_lost(db: sqlite3.Connection) -> None:
    """Have stores removed whose import was broken off. At start: later, an import may be going on."""
    for (store_row,) in db.execute("SELECT row_id FROM vector_stores WHERE tenant = ?", (stores.NOBODY,)).fetchall():
        begin(db, store_row)


def sweep(db: sqlite3.Connection, is_over: Callable[[], bool]) -> Slice:
    """Remove a slice: a step, and further ones until there is nothing left to do or `is_over`."""
    swept_ids: list[str] = []
    while True:
        found = db.execute("SELECT store_row, last_document FROM sweeps LIMIT 1").fetchone()
        if found is None:
            if not editions.tidy(db, _NUM_ROWS):
                return Slice(True, tuple(swept_ids))
        elif not _sweep_document(db, *found) and not _sweep_rest(db, found[0]):
            swept_ids.append(_finish(db, found[0]))
        if is_over():
            return Slice(False, tuple(swept_ids))


def _sweep_document(db: sqlite3.Connection, store_row: int, last_document: int) -> bool:
    """Do a step with the next document; false if there are no more."""
    query = "SELECT id, file_row FROM documents WHERE store_row = ? AND id > ? ORDER BY id LIMIT 1"
    found = db.execute(query, (store_row, last_document)).fetchone()
    if found is None:
        return False
    document_id, file_row = found
    if any(_remove_some(db, table, document_id) for table in _CONTENTS):
        return True
    if _is_nobodys(db, store_row):
        db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
        db.execute("DELETE FROM files WHERE row_id = ? AND tenant = ?", (file_row, stores.NOBODY))
    else:
        db.execute("UPDATE documents SET usage_bytes = 0 WHERE id = ?", (document_id,))
    db.execute("UPDATE sweeps SET last_document = ? WHERE store_row = ?", (document_id, store_row))
    return True


def _remove_some(db: sqlite3.Connection, table: str, document_id: int) -> bool:
    some = f"SELECT rowid FROM {table} WHERE document_id = ? LIMIT ?"  # noqa: S608  # our own names
    return db.execute(f"DELETE FROM {table} WHERE rowid IN ({some})", (document_id, _NUM_ROWS)).rowcount > 0  # noqa: S608


def _sweep_rest(db: sqlite3.Connection, store_row: int) -> bool:
    """Do a step with what does not belong to a document; false if there is no more."""
    return _is_nobodys(db, store_row) and lists.forget(db, stores.documents_list(store_row), _NUM_ROWS)


def _finish(db: sqlite3.Connection, store_row: int) -> str:
    [(store_id,)] = db.execute("SELECT id FROM vector_stores WHERE row_id = ?", (store_row,))
    if _is_nobodys(db, store_row):
        db.execute("DELETE FROM vector_stores WHERE row_id = ?", (store_row,))  # batches, reindex and sweep go with it
    else:
        db.execute("DELETE FROM sweeps WHERE store_row = ?", (store_row,))
    return str(store_id)


def _is_nobodys(db: sqlite3.Connection, store_row: int) -> bool:
    [(tenant,)] = db.execute("SELECT tenant FROM vector_stores WHERE row_id = ?", (store_row,))
    return bool(tenant == stores.NOBODY)
