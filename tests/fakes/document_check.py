"""Looks at a database of documents from below, and tells what does not fit together."""

from __future__ import annotations

import sqlite3

COUNTED = "SELECT store_row, status, number, usage_bytes FROM document_counts WHERE number != 0 OR usage_bytes != 0"
COUNTS = "SELECT store_row, status, count(*), sum(usage_bytes) FROM documents GROUP BY store_row, status"

ORPHANS = {
    "chunks without document": "SELECT id FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)",
    "chunks of another store than their document": "SELECT chunks.id FROM chunks JOIN documents ON "
    "documents.id = chunks.document_id WHERE chunks.store_row != documents.store_row",
    "chunks without parent": "SELECT id FROM chunks WHERE parent_id NOT IN (SELECT id FROM parents)",
    "chunks without text": "SELECT id FROM chunks WHERE document_id NOT IN (SELECT document_id FROM texts)",
    "chunks with a vector of another length": "SELECT v.id FROM chunk_vectors AS v JOIN vector_stores ON "
    "vector_stores.row_id = v.store_row WHERE length(v.vector) != 2 * vector_stores.dimensions",
    "chunks without terms": "SELECT id FROM chunks WHERE num_words IS NULL OR terms IS NULL OR length(terms) % 9 != 0 "
    "OR (num_words = 0) != (length(terms) = 0)",
    "tables of one store": "SELECT name FROM sqlite_master WHERE name GLOB 'chunks_*[0-9]*'",
    "parents without chunk": "SELECT id FROM parents WHERE id NOT IN (SELECT parent_id FROM chunks)",
    "texts without chunk": "SELECT document_id FROM texts WHERE document_id NOT IN (SELECT document_id FROM chunks)",
    "pending vectors without job": "SELECT rowid FROM pending_vectors WHERE document_id NOT IN "
    "(SELECT id FROM documents WHERE status = 'in_progress')",
    "completed documents without chunks": "SELECT documents.id FROM documents JOIN vector_stores ON "
    "vector_stores.row_id = documents.store_row WHERE status = 'completed' AND NOT is_expired AND "
    "num_chunks != (SELECT count(*) FROM chunks WHERE document_id = documents.id)",
    "vectors of no edition": "SELECT edition FROM edition_vectors WHERE edition NOT IN "
    "(SELECT edition FROM vector_stores UNION SELECT edition FROM reindexes)",
    "counts of documents that are not there": f"{COUNTED} EXCEPT {COUNTS}",
    "documents that are not counted": f"{COUNTS} EXCEPT {COUNTED}",
    "foreign keys to nowhere": "PRAGMA foreign_key_check",
}


def findings(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return what is wrong; empty if everything fits."""
    return {what: rows for what, query in ORPHANS.items() if (rows := db.execute(query).fetchall())}
