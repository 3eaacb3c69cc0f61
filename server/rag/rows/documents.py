"""Rows of documents: files in a vector store. `jobs` has what happens to them while they are in progress."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from server.errors import Conflict, ObjectNotFound
from server.rag.documents import (
    Attributes,
    ChunkChange,
    ChunkingStrategy,
    DocumentRecord,
    DocumentStatus,
    FailureCode,
)
from server.rag.paging import Page
from server.rag.rows import batches, chunks, lists, named, sequences, stores, texts

SELECT = (  # what `record` reads
    "SELECT d.id, s.id AS store_id, s.tenant, f.id AS file_id, f.filename, d.batch_id, d.status, d.failure_code, "
    "d.failure_message, d.attributes, d.chunking, d.created_at, d.usage_bytes, d.num_chunks, d.attempts "
    "FROM documents AS d JOIN vector_stores AS s ON s.row_id = d.store_row JOIN files AS f ON f.row_id = d.file_row"
)


def insert(
    db: sqlite3.Connection,
    tenant: str,
    store_id: str,
    new: Sequence[tuple[str, Attributes, ChunkingStrategy]],
    *,
    batch_id: str | None,
    now: int,
) -> list[DocumentRecord]:
    store_row = stores.row_of(db, tenant, store_id)
    stores.check_alive(db, store_row)
    if batch_id is not None:
        batches.insert(db, store_row, batch_id, now=now)
    by_file = {file_id: (attributes, chunking) for file_id, attributes, chunking in new}
    ids = sequences.take(db, "documents", len(by_file))
    for document_id, (file_id, (attributes, chunking)) in zip(ids, by_file.items(), strict=True):
        # Of a file that is here already, chunks and usage stay and follow the new id, and it stays where it is in the
        # list, or who pages through that would meet it twice; the rest is that of a new job.
        db.execute(
            "INSERT INTO documents (id, position, store_row, file_row, batch_id, status, attributes, chunking, "
            "created_at) VALUES (?1, ?1, ?2, ?3, ?4, 'in_progress', ?5, ?6, ?7) "
            "ON CONFLICT (store_row, file_row) DO UPDATE SET "
            "id = excluded.id, batch_id = excluded.batch_id, status = excluded.status, failure_code = NULL, "
            "failure_message = NULL, attributes = excluded.attributes, chunking = excluded.chunking, "
            "created_at = excluded.created_at, num_chunks = 0, attempts = 0",
            (
                document_id,
                store_row,
                _file_row(db, tenant, file_id),
                batch_id,
                json.dumps(attributes),
                stores.chunking_json(chunking),
                now,
            ),
        )
    query = f"{SELECT} WHERE d.store_row = ? AND d.id >= ? ORDER BY d.id"
    return [record(row) for row in named.select(db, query, (store_row, ids.start))]


def find(db: sqlite3.Connection, tenant: str, store_id: str, file_id: str) -> DocumentRecord:
    store_row = stores.row_of(db, tenant, store_id)
    found = named.select(db, f"{SELECT} WHERE d.store_row = ? AND f.id = ?", (store_row, file_id))
    if not found:
        raise ObjectNotFound(f"no file with id {file_id!r} in vector store {store_id!r}")
    return record(found[0])


def select(
    db: sqlite3.Connection,
    tenant: str,
    store_id: str,
    *,
    status: DocumentStatus | None,
    batch_id: str | None,
    page: Page,
) -> tuple[list[DocumentRecord], bool]:
    store_row = stores.row_of(db, tenant, store_id)
    if batch_id is not None:
        batches.check(db, store_row, batch_id)
    rows, has_more = lists.select_page(
        db,
        f"{SELECT} WHERE d.store_row = :store_row AND (:status IS NULL OR d.status = :status) "
        "AND (:batch_id IS NULL OR d.batch_id = :batch_id) AND d.position > :low AND d.position < :high "
        "ORDER BY d.position",
        {"store_row": store_row, "status": status, "batch_id": batch_id},
        page=page,
        list_name=stores.documents_list(store_row),
        position_query="SELECT d.position FROM documents AS d JOIN files AS f ON f.row_id = d.file_row "
        "WHERE d.store_row = :store_row AND f.id = :id",
    )
    return [record(row) for row in rows], has_more


def set_attributes(
    db: sqlite3.Connection, tenant: str, store_id: str, file_id: str, attributes: Attributes
) -> DocumentRecord:
    document = find(db, tenant, store_id, file_id)
    db.execute("UPDATE documents SET attributes = ? WHERE id = ?", (json.dumps(attributes), document.id))
    return find(db, tenant, store_id, file_id)


def remove(db: sqlite3.Connection, tenant: str, store_id: str, file_id: str) -> ChunkChange:
    document = find(db, tenant, store_id, file_id)
    return remove_row(db, stores.row_of(db, tenant, store_id), document.id, file_id)


def remove_row(db: sqlite3.Connection, store_row: int, document_id: int, file_id: str) -> ChunkChange:
    """Remove a document from a store, whoever's it is."""
    removed_ids = chunks.delete(db, document_id)
    [(position,)] = db.execute("SELECT position FROM documents WHERE id = ?", (document_id,))
    db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    lists.remember(db, stores.documents_list(store_row), file_id, position)
    store_id, generation = stores.next_generation(db, store_row)
    return ChunkChange(store_id=store_id, generation=generation, removed_ids=removed_ids)


def text(db: sqlite3.Connection, tenant: str, store_id: str, file_id: str) -> str:
    document = find(db, tenant, store_id, file_id)
    stores.check_alive(db, stores.row_of(db, tenant, store_id))
    found = texts.whole(db, document.id)
    if not found:
        raise Conflict(f"nothing is stored of file {file_id!r} in vector store {store_id!r}: it is {document.status}")
    return found


def record(row: sqlite3.Row) -> DocumentRecord:
    code: FailureCode | None = row["failure_code"]
    return DocumentRecord(
        id=row["id"],
        store_id=row["store_id"],
        file_id=row["file_id"],
        filename=row["filename"],
        batch_id=row["batch_id"],
        status=row["status"],
        failure=None if code is None else (code, row["failure_message"]),
        attributes=json.loads(row["attributes"]),
        chunking=stores.chunking_of(row["chunking"]),
        created_at=row["created_at"],
        usage_bytes=row["usage_bytes"],
        num_chunks=row["num_chunks"],
        num_chunks_done=row["num_chunks"],
        num_attempts=row["attempts"],
    )


def _file_row(db: sqlite3.Connection, tenant: str, file_id: str) -> int:
    found = db.execute("SELECT row_id FROM files WHERE id = ? AND tenant = ?", (file_id, tenant)).fetchone()
    if found is None:
        raise ObjectNotFound(f"no file with id {file_id!r}", param="file_id")
    return int(found[0])
