"""Rows of file batches: documents that were put into a store together."""

from __future__ import annotations

import sqlite3

from server.errors import ObjectNotFound
from server.rag.documents import BatchRecord, StatusCounts
from server.rag.rows import stores


def insert(db: sqlite3.Connection, store_row: int, batch_id: str, *, now: int) -> None:
    db.execute("INSERT INTO batches (id, store_row, created_at) VALUES (?, ?, ?)", (batch_id, store_row, now))


def find(db: sqlite3.Connection, tenant: str, store_id: str, batch_id: str) -> BatchRecord:
    created_at = check(db, stores.row_of(db, tenant, store_id), batch_id)
    counts = db.execute("SELECT status, count(*) FROM documents WHERE batch_id = ? GROUP BY status", (batch_id,))
    return BatchRecord(
        id=batch_id, store_id=store_id, created_at=created_at, counts=StatusCounts(**dict(counts.fetchall()))
    )


def check(db: sqlite3.Connection, store_row: int, batch_id: str) -> int:
    """Return when the batch was made.

    Raises:
        ObjectNotFound: The store has none of that id.
    """
    query = "SELECT created_at FROM batches WHERE id = ? AND store_row = ?"
    found = db.execute(query, (batch_id, store_row)).fetchone()
    if found is None:
        raise ObjectNotFound(f"no file batch with id {batch_id!r} in this vector store")
    return int(found[0])


def in_progress(db: sqlite3.Connection, tenant: str, store_id: str, batch_id: str) -> list[int]:
    """Return the ids of a batch's documents that are in progress."""
    check(db, stores.row_of(db, tenant, store_id), batch_id)
    query = "SELECT id FROM documents WHERE batch_id = ? AND status = 'in_progress' ORDER BY id"
    return [document_id for (document_id,) in db.execute(query, (batch_id,))]
