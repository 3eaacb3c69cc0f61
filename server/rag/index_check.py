"""Proves that what is stored of vector stores fits together, by reading the files themselves.

Chunks, vectors, words and index files are compared with one another, none is taken at its word. Reads only, and may
do so beside a running server: all of the database is read as it was at one moment. An index file may be behind, or
missing, or damaged: then the server makes it again. What it must not do is claim to be right and hold other vectors.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from server.errors import StorageError
from server.rag.halves import HALF, Halves, num_odd
from server.rag.index_snapshot import (
    Arrays,
    SnapshotRefused,
    SnapshotStamp,
    checksum_of,
    read_snapshot,
    read_stamp,
)
from server.rag.postings import Postings, checked_postings, join_postings, read_postings
from server.rag.rows import chunks
from server.rag.rows.chunks import Ids
from server.rag.rows.stores import NOBODY
from server.rag.store_index import vectors_file, words_file
from server.rag.terms import ChunkTerms
from server.storage.data_layout import DataLayout

FileState = Literal["current", "missing", "behind", "unusable"]

_STATES = get_args(FileState)

_ORPHANS = {  # what is being removed, in `sweeps`, need not fit together any more
    "chunks of no document": "SELECT count(*) FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)",
    "chunks in another store than their document": (
        "SELECT count(*) FROM chunks JOIN documents ON documents.id = chunks.document_id "
        "WHERE chunks.store_row != documents.store_row"
    ),
    "chunks without their parent": (
        "SELECT count(*) FROM chunks LEFT JOIN parents ON parents.id = chunks.parent_id "
        "AND parents.document_id = chunks.document_id WHERE parents.id IS NULL"
    ),
    "chunks that reach beyond their text": (
        "SELECT count(*) FROM chunks JOIN (SELECT document_id, sum(length(text)) AS length FROM texts "
        "GROUP BY document_id) AS whole USING (document_id) WHERE chunks.end > whole.length"
    ),
    "chunks without text": "SELECT count(*) FROM chunks WHERE document_id NOT IN (SELECT document_id FROM texts)",
    "completed documents with more or fewer chunks than they say": (
        "SELECT count(*) FROM documents WHERE status = 'completed' AND num_chunks != "
        "(SELECT count(*) FROM chunks WHERE document_id = documents.id) "
        "AND store_row NOT IN (SELECT row_id FROM vector_stores WHERE is_expired UNION SELECT store_row FROM sweeps)"
    ),
    "vectors kept for a job that is over": (
        "SELECT count(*) FROM pending_vectors WHERE document_id NOT IN "
        "(SELECT id FROM documents WHERE status = 'in_progress') AND store_row NOT IN (SELECT store_row FROM sweeps)"
    ),
    "contexts kept for a job that is over": (
        "SELECT count(*) FROM pending_contexts WHERE document_id NOT IN "
        "(SELECT id FROM documents WHERE status = 'in_progress') AND store_row NOT IN (SELECT store_row FROM sweeps)"
    ),
    "vectors of a reindex that are not as long as its model's": (
        "SELECT count(*) FROM edition_vectors JOIN reindexes USING (edition) "
        "WHERE length(edition_vectors.vector) != 2 * reindexes.dimensions"
    ),
    "wrong counts of documents": (
        "SELECT count(*) FROM (SELECT store_row, status, count(*), sum(usage_bytes) FROM documents "
        "GROUP BY store_row, status EXCEPT SELECT store_row, status, number, usage_bytes FROM document_counts)"
    ),
    "chunks with an id that may be given out again": (
        "SELECT count(*) FROM chunks WHERE id > (SELECT last FROM sequences WHERE name = 'chunks')"
    ),
}


@dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """What was found of one vector store.

    Attributes:
        file: Of its two index files the one that is worse off.
    """

    store_id: str
    generation: int
    num_chunks: int
    file: FileState


@dataclass(frozen=True)
class IndexReport:
    """`problems` are for people; none: all fits together."""

    stores: tuple[StoreCheck, ...]
    problems: tuple[str, ...]


def check_index(data_dir: Path) -> IndexReport:
    """Check everything; half a minute for each 100,000 chunks.

    Raises:
        StorageError: There is no database, or it cannot be read.
    """
    layout = DataLayout(data_dir)
    if not layout.database.exists():
        raise StorageError(f"no database in {data_dir}")
    try:
        with closing(sqlite3.connect(f"{layout.database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.isolation_level = None
            db.execute("BEGIN")
            problems = list(_check_database(db))
            found = [_check_store(db, store, layout.indexes) for store in _stores(db)]
    except (sqlite3.Error, UnicodeDecodeError) as exc:  # the latter: of what SQLite hands out of a damaged page
        raise StorageError(f"the database cannot be read: {exc}") from exc
    return IndexReport(
        tuple(check for check, _ in found),
        (*problems, *(f"vector store {check.store_id}: {problem}" for check, each in found for problem in each)),
    )


@dataclass(frozen=True)
class _Store:
    row: int
    id: str
    generation: int
    mark: int
    dimensions: int


def _stores(db: sqlite3.Connection) -> list[_Store]:
    """List stores that somebody can see."""
    query = (
        "SELECT row_id, id, generation, mark, dimensions FROM vector_stores WHERE tenant != ? "
        "AND row_id NOT IN (SELECT store_row FROM sweeps)"
    )
    return [_Store(*row) for row in db.execute(query, (NOBODY,)).fetchall()]


def _check_database(db: sqlite3.Connection) -> Iterator[str]:
    for (finding,) in db.execute("PRAGMA quick_check").fetchall():
        if finding != "ok":
            yield f"the database is damaged: {finding}"
    for table, row, other, _ in db.execute("PRAGMA foreign_key_check").fetchall():
        yield f"row {row} of {table} refers to a row of {other} that is not there"
    for what, query in _ORPHANS.items():
        [(number,)] = db.execute(query)
        if number:
            yield f"{number} {what}"


def _check_store(db: sqlite3.Connection, store: _Store, folder: Path) -> tuple[StoreCheck, list[str]]:
    ids, vectors, bad_vectors = _read_vectors(db, store)
    checksum = checksum_of(ids)
    stamp = SnapshotStamp(generation=store.generation, count=len(ids), checksum=checksum, mark=store.mark)
    vectors_state, bad_vectors_file = _check_file(
        vectors_file(folder, store.id), stamp, lambda segments: _same_vectors(segments, ids, vectors)
    )
    bad_words = _check_words(db, store)
    words_state, bad_words_file = _check_file(
        words_file(folder, store.id),
        stamp,
        lambda segments: bool(bad_words) or _same_words(segments, read_postings(db, store.row)),
    )
    check = StoreCheck(
        store_id=store.id,
        generation=store.generation,
        num_chunks=len(ids),
        file=max(vectors_state, words_state, key=_STATES.index),
    )
    return check, [*bad_vectors, *bad_words, *bad_vectors_file, *bad_words_file]


def _read_vectors(db: sqlite3.Connection, store: _Store) -> tuple[Ids, Halves, list[str]]:
    rows = db.execute("SELECT id, vector FROM chunk_vectors WHERE store_row = ? ORDER BY id", (store.row,)).fetchall()
    ids = np.array([chunk_id for chunk_id, _ in rows], np.int64)
    if any(len(blob) != store.dimensions * HALF.itemsize for _, blob in rows):
        return ids, np.empty((0, store.dimensions), HALF), [f"vectors that are not of {store.dimensions} numbers"]
    vectors = np.frombuffer(b"".join(blob for _, blob in rows), HALF).reshape(-1, store.dimensions)
    num_wrong = num_odd(vectors)
    return ids, vectors, [f"{num_wrong} vectors that are not of length 1"] if num_wrong else []


def _check_words(db: sqlite3.Connection, store: _Store) -> list[str]:
    """Compare the terms of chunks with those of their texts, looked up anew."""
    query = "SELECT DISTINCT document_id FROM chunks WHERE store_row = ?"
    for (document_id,) in db.execute(query, (store.row,)).fetchall():
        query = "SELECT id, num_words, terms FROM chunks WHERE document_id = ?"
        stored = {chunk_id: ChunkTerms(*terms) for chunk_id, *terms in db.execute(query, (document_id,))}
        if stored != chunks.make_terms(db, document_id):
            return ["words that are not those of the chunks"]
    return []


def _check_file(
    path: Path, stamp: SnapshotStamp, is_same: Callable[[list[Arrays]], bool]
) -> tuple[FileState, list[str]]:
    try:
        if read_stamp(path) != stamp:
            return "behind", []
        if is_same(read_snapshot(path, stamp)):
            return "current", []
    except FileNotFoundError:
        return "missing", []
    except (OSError, SnapshotRefused):
        return "unusable", []
    return "current", [f"{path.suffix[1:]} in the index file that are not those of the database"]


def _same_vectors(segments: list[Arrays], ids: Ids, vectors: Halves) -> bool:
    found = np.empty_like(vectors)
    for segment_ids, rows, *_ in segments:
        found[np.searchsorted(ids, segment_ids)] = rows
    return np.array_equal(found.view(np.uint16), vectors.view(np.uint16))


def _same_words(segments: list[Arrays], expected: Postings) -> bool:
    if not segments:
        return not len(expected.ids)
    found = join_postings([checked_postings(arrays) for arrays in segments])
    return all(np.array_equal(a, b) for a, b in zip(found.arrays(), expected.arrays(), strict=True))
