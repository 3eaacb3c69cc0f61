"""Rows of a store on its way from one data directory to another. What comes in is nobody's until all of it is there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from server.rag.documents import ChunkDraft, ChunkedDocument, FileRecord, Span, StoredDocument, StoreRecord
from server.rag.halves import HALF
from server.rag.rows import chunks, named, sequences, stores, texts
from server.rag.rows.stores import NOBODY, NewStore
from server.rag.terms import ChunkTerms

# ---- out


def begin_export(db: sqlite3.Connection, tenant: str, store_id: str) -> tuple[StoreRecord, list[str]]:
    """Return a store, and the ids of the files that it has chunks of, in the order of these.

    In another store, too, older chunks go before younger ones that are as good.
    """
    store = stores.find(db, tenant, store_id)
    store_row = stores.row_of(db, tenant, store_id)
    stores.check_alive(db, store_row)
    query = (
        "SELECT f.id FROM documents AS d JOIN files AS f ON f.row_id = d.file_row "
        "JOIN chunks AS c ON c.document_id = d.id WHERE d.store_row = ? GROUP BY d.id ORDER BY min(c.id)"
    )
    return store, [file_id for (file_id,) in db.execute(query, (store_row,))]


def read(db: sqlite3.Connection, tenant: str, store_id: str, file_id: str, *, edition: int) -> StoredDocument | None:
    """Return a document as it is searched now; None if it is not."""
    store_row = stores.row_of(db, tenant, store_id)
    stores.check_alive(db, store_row)
    stores.check_edition(db, store_row, edition)
    found = named.select(
        db,
        "SELECT d.id AS document_id, d.attributes, d.chunking, s.dimensions, f.id, f.filename, f.purpose, f.num_bytes, "
        "f.sha256, f.created_at FROM files AS f JOIN documents AS d ON d.file_row = f.row_id "
        "JOIN vector_stores AS s ON s.row_id = d.store_row WHERE f.id = ? AND d.store_row = ?",
        (file_id, store_row),
    )
    if not found:
        return None
    [row] = found
    chunked = _read_chunks(db, row["document_id"])
    if not chunked.chunks:
        return None
    # As `chunk_vectors` has it, but looked up by document.
    cursor = db.execute(
        "SELECT c.id, coalesce(v.vector, c.vector) FROM chunks AS c LEFT JOIN edition_vectors AS v "
        "ON v.chunk_id = c.id AND v.edition = ? WHERE c.document_id = ? ORDER BY c.id",
        (edition, row["document_id"]),
    )
    _, halves = chunks.read_vectors(cursor, len(chunked.chunks), row["dimensions"])
    return StoredDocument(
        file=FileRecord(
            id=row["id"],
            filename=row["filename"],
            purpose=row["purpose"],
            num_bytes=row["num_bytes"],
            sha256=row["sha256"],
            created_at=row["created_at"],
        ),
        attributes=json.loads(row["attributes"]),
        chunking=stores.chunking_of(row["chunking"]),
        text=texts.whole(db, row["document_id"]),
        chunked=chunked,
        vectors=halves,
    )


def _read_chunks(db: sqlite3.Connection, document_id: int) -> ChunkedDocument:
    parents = "SELECT id, start, end, page, heading FROM parents WHERE document_id = ? ORDER BY id"
    rows = db.execute(parents, (document_id,)).fetchall()
    places = {parent_id: place for place, (parent_id, *_) in enumerate(rows)}
    drafts = db.execute(
        "SELECT start, end, page, heading, parent_id, num_tokens, context, context_key, columns FROM chunks "
        "WHERE document_id = ? ORDER BY id",
        (document_id,),
    )
    return ChunkedDocument(
        parents=tuple(Span(*span) for _, *span in rows),
        chunks=tuple(
            ChunkDraft(Span(*span), places[parent_id], num_tokens, context, context_key, columns)
            for *span, parent_id, num_tokens, context, context_key, columns in drafts
        ),
        pages=tuple(texts.pages(db, document_id)),
    )


# ---- in


def begin_import(db: sqlite3.Connection, new: NewStore, *, now: int) -> str:
    """Make a store that is nobody's; return its id."""
    return stores.insert(db, NOBODY, new, now=now).id


def add(
    db: sqlite3.Connection,
    store_id: str,
    file_id: str,
    document: StoredDocument,
    *,
    terms: Sequence[ChunkTerms],
    hashes: Sequence[bytes],
    now: int,
) -> None:
    """Put a document into a store that is nobody's. `file_id` is new."""
    store_row = stores.row_of(db, NOBODY, store_id)
    file = document.file
    added = db.execute(
        "INSERT INTO files (id, tenant, filename, purpose, num_bytes, sha256, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (file_id, NOBODY, file.filename, file.purpose, file.num_bytes, file.sha256, file.created_at),
    )
    [document_id] = sequences.take(db, "documents", 1)
    db.execute(
        "INSERT INTO documents (id, position, store_row, file_row, status, attributes, chunking, created_at, "
        "usage_bytes, num_chunks) VALUES (?1, ?1, ?2, ?3, 'completed', ?4, ?5, ?6, ?7, ?8)",
        (
            document_id,
            store_row,
            added.lastrowid,
            json.dumps(document.attributes),
            stores.chunking_json(document.chunking),
            now,
            len(document.text.encode()) + document.vectors.nbytes,
            len(document.chunked.chunks),
        ),
    )
    vectors = document.vectors.astype(HALF)
    chunks.insert(
        db,
        store_row,
        document_id,
        text=document.text,
        chunked=document.chunked,
        vectors=vectors,
        terms=terms,
        hashes=hashes,
    )


def finish_import(db: sqlite3.Connection, tenant: str, store_id: str) -> StoreRecord:
    """Give a store and its files to a tenant."""
    store_row = stores.row_of(db, NOBODY, store_id)
    db.execute(
        "UPDATE files SET tenant = ? WHERE tenant = ? AND row_id IN "
        "(SELECT file_row FROM documents WHERE store_row = ?)",
        (tenant, NOBODY, store_row),
    )
    db.execute("UPDATE vector_stores SET tenant = ? WHERE row_id = ?", (tenant, store_row))
    stores.next_generation(db, store_row)
    return stores.find(db, tenant, store_id)
