"""Vectors by what was embedded, and contexts by what they were written from: those of chunks, and those of documents
in progress, which a restart would lose.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from server.rag.rows import stores


def insert(
    db: sqlite3.Connection, store_row: int, document_id: int, vectors: Mapping[bytes, bytes], *, edition: int
) -> None:
    db.executemany(
        "INSERT INTO pending_vectors (store_row, document_id, edition, hash, vector) VALUES (?, ?, ?, ?, ?)",
        ((store_row, document_id, edition, hash_, vector) for hash_, vector in vectors.items()),
    )


def insert_contexts(db: sqlite3.Connection, store_row: int, document_id: int, contexts: Mapping[bytes, str]) -> None:
    db.executemany(
        "INSERT INTO pending_contexts (store_row, document_id, key, context) VALUES (?, ?, ?, ?)",
        ((store_row, document_id, key, context) for key, context in contexts.items()),
    )


def delete(db: sqlite3.Connection, document_id: int) -> None:
    db.execute("DELETE FROM pending_vectors WHERE document_id = ?", (document_id,))
    db.execute("DELETE FROM pending_contexts WHERE document_id = ?", (document_id,))


def known_vectors(
    db: sqlite3.Connection, store_id: str, hashes: Sequence[bytes], *, edition: int
) -> dict[bytes, bytes]:
    store_row = stores.row_of_any(db, store_id)
    stores.check_edition(db, store_row, edition)
    query = (
        "SELECT vector FROM chunk_vectors WHERE store_row = :store_row AND hash = :hash UNION ALL SELECT vector "
        "FROM pending_vectors WHERE store_row = :store_row AND hash = :hash AND edition = :edition LIMIT 1"
    )
    known = {}
    for hash_ in hashes:
        found = db.execute(query, {"store_row": store_row, "hash": hash_, "edition": edition}).fetchone()
        if found is not None:
            known[hash_] = found[0]
    return known


def known_contexts(db: sqlite3.Connection, store_id: str, keys: Sequence[bytes]) -> dict[bytes, str]:
    store_row = stores.row_of_any(db, store_id)
    query = (
        "SELECT context FROM chunks WHERE store_row = :store_row AND context_key = :key UNION ALL "
        "SELECT context FROM pending_contexts WHERE store_row = :store_row AND key = :key LIMIT 1"
    )
    known = {}
    for key in keys:
        found = db.execute(query, {"store_row": store_row, "key": key}).fetchone()
        if found is not None:
            known[key] = found[0]
    return known
