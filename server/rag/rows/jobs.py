"""Documents in progress, and how that ends. A job that is over, however it ended, is not changed any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np

from server.rag.documents import ChunkChange, ChunkedDocument, DocumentRecord, FailureCode, ParsedDocument, Vectors
from server.rag.halves import HALF
from server.rag.rows import chunks, documents, named, pending, stores
from server.rag.terms import ChunkTerms


def unfinished(db: sqlite3.Connection) -> list[tuple[str, DocumentRecord]]:
    rows = named.select(db, f"{documents.SELECT} WHERE d.status = 'in_progress' ORDER BY d.id")
    return [(row["tenant"], documents.record(row)) for row in rows]


def begin(db: sqlite3.Connection, document_id: int) -> int | None:
    """Count an attempt; return the new number, None if the job is over."""
    db.execute("UPDATE documents SET attempts = attempts + 1 WHERE id = ? AND status = 'in_progress'", (document_id,))
    query = "SELECT attempts FROM documents WHERE id = ? AND status = 'in_progress'"
    found = db.execute(query, (document_id,)).fetchone()
    return found[0] if found else None


def take_back(db: sqlite3.Connection, document_id: int) -> None:
    """Count an attempt no longer."""
    db.execute("UPDATE documents SET attempts = attempts - 1 WHERE id = ? AND attempts > 0", (document_id,))


def keep_pending(db: sqlite3.Connection, document_id: int, vectors: Mapping[bytes, bytes], *, edition: int) -> bool:
    store_row = _store_of(db, document_id)
    if store_row is None:
        return False
    stores.check_edition(db, store_row, edition)
    pending.insert(db, store_row, document_id, vectors, edition=edition)
    _note_progress(db, document_id)
    return True


def keep_contexts(db: sqlite3.Connection, document_id: int, contexts: Mapping[bytes, str]) -> bool:
    store_row = _store_of(db, document_id)
    if store_row is None:
        return False
    pending.insert_contexts(db, store_row, document_id, contexts)
    _note_progress(db, document_id)
    return True


def complete(
    db: sqlite3.Connection,
    document_id: int,
    parsed: ParsedDocument,
    chunked: ChunkedDocument,
    *,
    vectors: Vectors,
    terms: Sequence[ChunkTerms],
    hashes: Sequence[bytes],
    edition: int,
) -> ChunkChange | None:
    store_row = _store_of(db, document_id)
    if store_row is None:
        return None
    stores.check_edition(db, store_row, edition)
    halves = vectors.astype(HALF)
    removed_ids = chunks.delete(db, document_id)
    added_ids = chunks.insert(
        db,
        store_row,
        document_id,
        text=parsed.text,
        chunked=chunked,
        vectors=halves,
        terms=terms,
        hashes=hashes,
    )
    pending.delete(db, document_id)
    db.execute(
        "UPDATE documents SET status = 'completed', usage_bytes = ?, num_chunks = ? WHERE id = ?",
        (len(parsed.text.encode()) + halves.nbytes, len(added_ids), document_id),
    )
    store_id, generation = stores.next_generation(db, store_row)
    return ChunkChange(
        store_id=store_id,
        generation=generation,
        added_ids=added_ids,
        vectors=halves.astype(np.float32),
        terms=terms,
        removed_ids=removed_ids,
    )


def fail(db: sqlite3.Connection, document_id: int, code: FailureCode, message: str) -> bool:
    ended = db.execute(
        "UPDATE documents SET status = 'failed', failure_code = ?, failure_message = ? "
        "WHERE id = ? AND status = 'in_progress'",
        (code, message, document_id),
    )
    pending.delete(db, document_id)
    return ended.rowcount > 0


def cancel(db: sqlite3.Connection, document_ids: Sequence[int]) -> list[int]:
    """End jobs because somebody asked for it; return the ids as they came."""
    for document_id in document_ids:
        db.execute("UPDATE documents SET status = 'cancelled' WHERE id = ? AND status = 'in_progress'", (document_id,))
        pending.delete(db, document_id)
    return list(document_ids)


def _note_progress(db: sqlite3.Connection, document_id: int) -> None:
    """Only the attempt that is under way counts."""
    db.execute("UPDATE documents SET attempts = 1 WHERE id = ? AND attempts > 1", (document_id,))


def _store_of(db: sqlite3.Connection, document_id: int) -> int | None:
    """Return the number of the store that a document goes into; None if its job is over."""
    query = "SELECT store_row FROM documents WHERE id = ? AND status = 'in_progress'"
    found = db.execute(query, (document_id,)).fetchone()
    return found[0] if found else None
