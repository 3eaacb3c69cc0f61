"""Rows of chunks and parents. A chunk's vector and its terms are in its row: none can be there without the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from server.rag.documents import Chunk, ChunkedDocument, Parent, Span
from server.rag.halves import HALF, Halves
from server.rag.rows import named, sequences, stores, texts
from server.rag.terms import ChunkTerms, chunk_terms, searched_text

Ids = npt.NDArray[np.int64]

_ROWS_PER_FETCH = 4096  # of vectors or terms: rows become arrays a few at a time, not all side by side with them


def terms_of(text: str, chunked: ChunkedDocument) -> list[ChunkTerms]:
    """Make what `insert` wants of the chunks of a text. It takes a while: outside of transactions."""
    return chunk_terms(
        [
            searched_text(
                text[draft.span.start : draft.span.end],
                heading=draft.span.heading,
                columns=draft.columns,
                context=draft.context,
            )
            for draft in chunked.chunks
        ]
    )


def insert(
    db: sqlite3.Connection,
    store_row: int,
    document_id: int,
    *,
    text: str,
    chunked: ChunkedDocument,
    vectors: Halves,
    terms: Sequence[ChunkTerms],
    hashes: Sequence[bytes],
) -> Ids:
    """Store a document's text, parents and chunks; return the chunks' ids."""
    parent_ids = sequences.take(db, "parents", len(chunked.parents))
    chunk_ids = sequences.take(db, "chunks", len(chunked.chunks))
    texts.insert(db, document_id, text, chunked.pages)
    db.executemany(
        "INSERT INTO parents (id, document_id, start, end, page, heading) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (parent_id, document_id, span.start, span.end, span.page, span.heading)
            for parent_id, span in zip(parent_ids, chunked.parents, strict=True)
        ),
    )
    db.executemany(
        "INSERT INTO chunks (id, store_row, document_id, parent_id, ordinal, start, end, page, heading, num_tokens, "
        "context, context_key, columns, hash, vector, num_words, terms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                chunk_id,
                store_row,
                document_id,
                parent_ids[draft.parent],
                ordinal,
                draft.span.start,
                draft.span.end,
                draft.span.page,
                draft.span.heading,
                draft.num_tokens,
                draft.context,
                draft.context_key,
                draft.columns,
                hash_,
                vector.tobytes(),
                its_terms.num_words,
                its_terms.packed,
            )
            for ordinal, (chunk_id, draft, hash_, vector, its_terms) in enumerate(
                zip(chunk_ids, chunked.chunks, hashes, vectors, terms, strict=True)
            )
        ),
    )
    return np.array(chunk_ids, np.int64)


def delete(db: sqlite3.Connection, document_id: int) -> Ids:
    """Remove what `insert` stored of a document; return the ids of its chunks."""
    ids = db.execute("SELECT id FROM chunks WHERE document_id = ? ORDER BY id", (document_id,)).fetchall()
    db.execute("DELETE FROM chunks WHERE document_id = ?", (document_id,))
    db.execute("DELETE FROM parents WHERE document_id = ?", (document_id,))
    db.execute("DELETE FROM texts WHERE document_id = ?", (document_id,))
    return np.array([chunk_id for (chunk_id,) in ids], np.int64)


def make_terms(db: sqlite3.Connection, document_id: int) -> dict[int, ChunkTerms]:
    """Make the terms of a document's chunks anew, of what is stored of their texts; by chunk id."""
    text = texts.whole(db, document_id)
    query = "SELECT id, start, end, heading, columns, context FROM chunks WHERE document_id = ? ORDER BY id"
    rows = db.execute(query, (document_id,)).fetchall()
    searched = [
        searched_text(text[start:end], heading=heading, columns=columns, context=context)
        for _, start, end, heading, columns, context in rows
    ]
    return {chunk_id: terms for (chunk_id, *_), terms in zip(rows, chunk_terms(searched), strict=True)}


def read_terms(db: sqlite3.Connection, store_row: int) -> Iterator[tuple[Ids, list[ChunkTerms]]]:
    """Read the terms of all chunks of a store, some at a time, by ascending id."""
    query = "SELECT id, num_words, terms FROM chunks WHERE store_row = ? ORDER BY id"
    cursor = db.execute(query, (store_row,))
    while rows := cursor.fetchmany(_ROWS_PER_FETCH):
        yield np.array([row[0] for row in rows], np.int64), [ChunkTerms(*row[1:]) for row in rows]


def ids_of(db: sqlite3.Connection, store_row: int) -> Ids:
    rows = db.execute("SELECT id FROM chunks WHERE store_row = ? ORDER BY id", (store_row,))
    return np.fromiter((chunk_id for (chunk_id,) in rows), np.int64)


def select(db: sqlite3.Connection, ids: Sequence[int] | Ids) -> list[Chunk]:
    rows = named.select(
        db,
        "SELECT c.id, c.document_id, f.id AS file_id, f.filename, c.ordinal, c.start, c.end, c.page, c.heading, "
        "c.parent_id, c.num_tokens, c.context, c.columns, d.attributes "
        "FROM json_each(?) AS wanted CROSS JOIN chunks AS c ON c.id = wanted.value "
        "JOIN documents AS d ON d.id = c.document_id JOIN files AS f ON f.row_id = d.file_row ORDER BY wanted.key",
        (_json(ids),),
    )
    return [
        Chunk(
            id=row["id"],
            document_id=row["document_id"],
            file_id=row["file_id"],
            filename=row["filename"],
            ordinal=row["ordinal"],
            text=texts.cut(db, row["document_id"], row["start"], row["end"]),
            span=_span(row),
            parent_id=row["parent_id"],
            num_tokens=row["num_tokens"],
            context=row["context"],
            columns=row["columns"],
            attributes=json.loads(row["attributes"]),
        )
        for row in rows
    ]


def select_parents(db: sqlite3.Connection, ids: Sequence[int] | Ids) -> list[Parent]:
    rows = named.select(
        db,
        "SELECT p.id, p.document_id, p.start, p.end, p.page, p.heading "
        "FROM json_each(?) AS wanted CROSS JOIN parents AS p ON p.id = wanted.value ORDER BY wanted.key",
        (_json(ids),),
    )
    return [
        Parent(
            id=row["id"],
            document_id=row["document_id"],
            text=texts.cut(db, row["document_id"], row["start"], row["end"]),
            span=_span(row),
        )
        for row in rows
    ]


def headings(db: sqlite3.Connection, store_id: str) -> list[tuple[int, str, str]]:
    """Chunk id, file id and heading of all chunks of a store."""
    query = (
        "SELECT c.id, f.id, c.heading FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
        "JOIN files AS f ON f.row_id = d.file_row WHERE c.store_row = ? ORDER BY c.id"
    )
    return db.execute(query, (stores.row_of_any(db, store_id),)).fetchall()


def vectors(db: sqlite3.Connection, store_id: str) -> tuple[int, Ids, Halves]:
    """Read all vectors of a store, by ascending id, and the generation that they are of."""
    store_row = stores.row_of_any(db, store_id)
    query = "SELECT generation, dimensions FROM vector_stores WHERE row_id = ?"
    [(generation, dimensions)] = db.execute(query, (store_row,))
    [(num_chunks,)] = db.execute("SELECT count(*) FROM chunks WHERE store_row = ?", (store_row,))
    cursor = db.execute("SELECT id, vector FROM chunk_vectors WHERE store_row = ? ORDER BY id", (store_row,))
    return generation, *read_vectors(cursor, num_chunks, dimensions)


def read_vectors(cursor: sqlite3.Cursor, num_rows: int, dimensions: int) -> tuple[Ids, Halves]:
    """Fetch so many rows of id and vector."""
    ids = np.empty(num_rows, np.int64)
    rows = np.empty((num_rows, dimensions), np.float16)
    for start in range(0, num_rows, _ROWS_PER_FETCH):
        some_ids, blobs = zip(*cursor.fetchmany(_ROWS_PER_FETCH), strict=True)
        stop = start + len(blobs)
        ids[start:stop] = some_ids
        rows[start:stop] = np.frombuffer(b"".join(blobs), HALF).reshape(-1, dimensions)
    return ids, rows


def _json(ids: Sequence[int] | Ids) -> str:
    return json.dumps([int(each) for each in ids])


def _span(row: sqlite3.Row) -> Span:
    return Span(start=row["start"], end=row["end"], page=row["page"], heading=row["heading"])
