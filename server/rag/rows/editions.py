"""Rows of reindexes, and the vectors that they make: the next edition of a store, until the store becomes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from server.errors import Conflict, ObjectNotFound
from server.rag.documents import ReindexRecord
from server.rag.embedded_text import embedded_text
from server.rag.halves import HALF, Halves
from server.rag.rows import chunks, named, sequences, stores
from server.rag.rows.chunks import Ids

_SELECT = (
    "SELECT r.store_row, s.tenant, s.id AS store_id, r.edition, r.status, r.failure, r.embedding_model, r.fingerprint, "
    "r.dimensions, r.created_at FROM reindexes AS r JOIN vector_stores AS s ON s.row_id = r.store_row"
)


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """What a store is to be embedded with; attributes as in `StoreRecord`."""

    embedding_model: str
    fingerprint: str
    dimensions: int


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """A store has become another edition. `chunk_ids` are those it has, ascending."""

    store_id: str
    generation: int
    chunk_ids: Ids


def begin(db: sqlite3.Connection, tenant: str, store_id: str, model: NewModel, *, now: int) -> ReindexRecord:
    store_row = stores.row_of(db, tenant, store_id)
    stores.check_alive(db, store_row)
    running = _running_in(db, store_row)
    if running is not None and (running["fingerprint"], running["dimensions"]) == (model.fingerprint, model.dimensions):
        return _record(db, running)
    if running is not None:
        raise Conflict(
            f"vector store {store_id!r} is being reindexed with model {running['embedding_model']!r}; cancel that first"
        )
    # Vectors that are the model's already stay; it may be called something else now.
    is_done = db.execute(
        "UPDATE vector_stores SET embedding_model = ? WHERE row_id = ? AND fingerprint = ? AND dimensions = ?",
        (model.embedding_model, store_row, model.fingerprint, model.dimensions),
    ).rowcount
    [edition] = sequences.take(db, "editions", 1)
    db.execute(
        "INSERT OR REPLACE INTO reindexes (store_row, edition, status, embedding_model, fingerprint, dimensions, "
        "created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            store_row,
            edition,
            "completed" if is_done else "in_progress",
            model.embedding_model,
            model.fingerprint,
            model.dimensions,
            now,
        ),
    )
    return find(db, tenant, store_id)


def find(db: sqlite3.Connection, tenant: str, store_id: str) -> ReindexRecord:
    found = named.select(db, f"{_SELECT} WHERE r.store_row = ?", (stores.row_of(db, tenant, store_id),))
    if not found:
        raise ObjectNotFound(f"vector store {store_id!r} has never been reindexed")
    return _record(db, found[0])


def unfinished(db: sqlite3.Connection) -> list[ReindexRecord]:
    return [
        _record(db, row) for row in named.select(db, f"{_SELECT} WHERE r.status = 'in_progress' ORDER BY r.edition")
    ]


def cancel(db: sqlite3.Connection, tenant: str, store_id: str) -> ReindexRecord:
    find(db, tenant, store_id)
    cancel_row(db, stores.row_of(db, tenant, store_id))
    return find(db, tenant, store_id)


def cancel_row(db: sqlite3.Connection, store_row: int) -> None:
    db.execute("UPDATE reindexes SET status = 'cancelled' WHERE store_row = ? AND status = 'in_progress'", (store_row,))


def fail(db: sqlite3.Connection, edition: int, reason: str) -> None:
    db.execute(
        "UPDATE reindexes SET status = 'failed', failure = ? WHERE edition = ? AND status = 'in_progress'",
        (reason, edition),
    )


# ---- one chunk after another


def next_chunks(db: sqlite3.Connection, edition: int, after_id: int, num_chunks: int) -> list[tuple[int, str]]:
    """Return the first chunks behind an id that have no vector of an edition yet: ids, and what is embedded of them."""
    rows = db.execute(
        "SELECT id FROM chunks WHERE store_row = ? AND id > ? AND NOT EXISTS (SELECT 1 FROM edition_vectors "
        "WHERE edition_vectors.chunk_id = chunks.id AND edition = ?) ORDER BY id LIMIT ?",
        (_running(db, edition)["store_row"], after_id, edition, num_chunks),
    )
    return [
        (
            chunk.id,
            embedded_text(chunk.text, heading=chunk.span.heading, columns=chunk.columns, context=chunk.context),
        )
        for chunk in chunks.select(db, [chunk_id for (chunk_id,) in rows])
    ]


def keep(db: sqlite3.Connection, edition: int, vectors: Mapping[int, bytes]) -> None:
    """Keep vectors by chunk; chunks that are gone meanwhile are passed over."""
    _running(db, edition)
    db.executemany(
        "INSERT OR IGNORE INTO edition_vectors (chunk_id, edition, vector) SELECT id, ?, ? FROM chunks WHERE id = ?",
        ((edition, vector, chunk_id) for chunk_id, vector in vectors.items()),
    )


# ---- all at once


def vectors(db: sqlite3.Connection, edition: int) -> tuple[int, Ids, Halves]:
    """Read what there is of an edition in progress, by ascending id, and the store's generation."""
    row = _running(db, edition)
    [(num_vectors,)] = db.execute("SELECT count(*) FROM edition_vectors WHERE edition = ?", (edition,))
    cursor = db.execute("SELECT chunk_id, vector FROM edition_vectors WHERE edition = ? ORDER BY chunk_id", (edition,))
    return stores.generation(db, row["store_id"]), *chunks.read_vectors(cursor, num_vectors, row["dimensions"])


def swap(db: sqlite3.Connection, edition: int) -> Swapped | None:
    """Make a store the edition that its reindex has made; None, and no change, if chunks have no vector of it yet.

    Vectors stay where they are, and `chunk_vectors` shows them: `tidy` moves them later.
    """
    row = _running(db, edition)
    store_row = row["store_row"]
    chunk_ids = chunks.ids_of(db, store_row)
    [(num_vectors,)] = db.execute("SELECT count(*) FROM edition_vectors WHERE edition = ?", (edition,))
    if num_vectors != len(chunk_ids):
        return None
    [(dimensions,)] = db.execute("SELECT dimensions FROM vector_stores WHERE row_id = ?", (store_row,))
    db.execute(
        "UPDATE vector_stores SET edition = ?, embedding_model = ?, fingerprint = ?, dimensions = ? WHERE row_id = ?",
        (edition, row["embedding_model"], row["fingerprint"], row["dimensions"], store_row),
    )
    if growth := (row["dimensions"] - dimensions) * HALF.itemsize:
        # `num_chunks` is 0 of a file that was added again and is not completed, while its old chunks stay.
        db.execute(
            "UPDATE documents SET usage_bytes = usage_bytes + "
            "(SELECT count(*) FROM chunks WHERE document_id = documents.id) * ? WHERE store_row = ?",
            (growth, store_row),
        )
    db.execute("UPDATE reindexes SET status = 'completed' WHERE edition = ?", (edition,))
    store_id, generation = stores.next_generation(db, store_row)
    return Swapped(store_id=store_id, generation=generation, chunk_ids=chunk_ids)


def tidy(db: sqlite3.Connection, num_rows: int) -> bool:
    """Move some vectors to where they belong, or remove some that came to nothing; false if all is tidy."""
    edition = 0
    while True:
        query = "SELECT min(edition) FROM edition_vectors WHERE edition > ?"
        [(edition,)] = db.execute(query, (edition,))
        if edition is None:
            return False
        if not _is_running(db, edition):
            _tidy_edition(db, edition, num_rows)
            return True


def _tidy_edition(db: sqlite3.Connection, edition: int, num_rows: int) -> None:
    some = "SELECT rowid, chunk_id, vector FROM edition_vectors WHERE edition = ? ORDER BY chunk_id LIMIT ?"
    rows = db.execute(some, (edition, num_rows)).fetchall()
    if db.execute("SELECT 1 FROM vector_stores WHERE edition = ?", (edition,)).fetchone():
        db.executemany(
            "UPDATE chunks SET vector = ? WHERE id = ?", ((vector, chunk_id) for _, chunk_id, vector in rows)
        )
    db.executemany("DELETE FROM edition_vectors WHERE rowid = ?", ((row_id,) for row_id, _, _ in rows))


def _is_running(db: sqlite3.Connection, edition: int) -> bool:
    query = "SELECT 1 FROM reindexes WHERE edition = ? AND status = 'in_progress'"
    return db.execute(query, (edition,)).fetchone() is not None


def _running(db: sqlite3.Connection, edition: int) -> sqlite3.Row:
    """Return a reindex that is in progress.

    Raises:
        ObjectNotFound: It is over, or its store is gone.
    """
    found = named.select(db, f"{_SELECT} WHERE r.edition = ? AND r.status = 'in_progress'", (edition,))
    if not found:
        raise ObjectNotFound("the reindex is over")
    return found[0]


def _running_in(db: sqlite3.Connection, store_row: int) -> sqlite3.Row | None:
    found = named.select(db, f"{_SELECT} WHERE r.store_row = ? AND r.status = 'in_progress'", (store_row,))
    return found[0] if found else None


def _record(db: sqlite3.Connection, row: sqlite3.Row) -> ReindexRecord:
    [(num_chunks,)] = db.execute("SELECT count(*) FROM chunks WHERE store_row = ?", (row["store_row"],))
    done = "SELECT count(*) FROM edition_vectors WHERE edition = ?"
    [(num_done,)] = db.execute(done, (row["edition"],))
    return ReindexRecord(
        tenant=row["tenant"],
        store_id=row["store_id"],
        edition=row["edition"],
        status=row["status"],
        embedding_model=row["embedding_model"],
        fingerprint=row["fingerprint"],
        dimensions=row["dimensions"],
        created_at=row["created_at"],
        num_chunks=num_chunks,
        num_chunks_done=num_chunks if row["status"] == "completed" else num_done,
        failure=row["failure"],
    )
