"""Vectors by what was embedded: those of chunks, and those of documents in progress, which a restart would lose."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from server.rag.rows import stores


def insert(db: sqlite3.Connection, store_row: int, document_id: int, vectors: Mapping[bytes, bytes]) -> None:
    db.executemany(
        "INSERT INTO pending_vectors (store_row, document_id, hash, vector) VALUES (?, ?, ?, ?)",
        ((store_row, document_id, hash_, vector) for hash_, vector in vectors.items()),
    )


def delete(db: sqlite3.Connection, document_id: int) -> None:
    db.execute("DELETE FROM pending_vectors WHERE document_id = ?", (document_id,))


def known_vectors(db: sqlite3.Connection, store_id: str, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    store_row = stores.row_of_any(db, store_id)
    query = (
        "SELECT vector FROM chunks WHERE store_row = :store_row AND hash = :hash "
        "UNION ALL SELECT vector FROM pending_vectors WHERE store_row = :store_row AND hash = :hash LIMIT 1"
    )
    known = {}
    for hash_ in hashes:
        found = db.execute(query, {"store_row": store_row, "hash": hash_}).fetchone()
        if found is not None:
            known[hash_] = found[0]
    return known
