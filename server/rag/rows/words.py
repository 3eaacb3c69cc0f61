"""The words of a store's chunks: an FTS5 table for each store, so that BM25 counts within it, and one tenant's words
say nothing of another's. The text itself is not kept here; taking a row out needs the very text that was put in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

WordRow = tuple[int, str, str]
"""Chunk id, text, heading."""

_LAST_OVERHEAD_ID = 10
"""In FTS5's own table of data: rows up to this are averages and structure, without which no table opens."""


def word_row(chunk_id: int, text: str, *, heading: str, context: str) -> WordRow:
    """Tell what of a chunk is searched."""
    return chunk_id, f"{context}\n{text}" if context else text, heading


def table(store_row: int) -> str:
    """Name the table of a store. Its columns: rowid is the chunk's id, text, heading."""
    return f"chunks_fts_{int(store_row)}"


def terms_table(store_row: int) -> str:
    """Name the table that lists, for each word (term) of a store, its occurrences (doc, col). Nothing is kept in it."""
    return f"chunks_terms_{int(store_row)}"


def create(db: sqlite3.Connection, store_row: int) -> None:
    db.execute(
        f"CREATE VIRTUAL TABLE {table(store_row)} "
        "USING fts5 (text, heading, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    db.execute(f"CREATE VIRTUAL TABLE {terms_table(store_row)} USING fts5vocab ({table(store_row)}, instance)")


def drop(db: sqlite3.Connection, store_row: int) -> None:
    db.execute(f"DROP TABLE {terms_table(store_row)}")
    db.execute(f"DROP TABLE {table(store_row)}")


def insert(db: sqlite3.Connection, store_row: int, rows: Iterable[WordRow]) -> None:
    name = table(store_row)
    db.executemany(f"INSERT INTO {name} (rowid, text, heading) VALUES (?, ?, ?)", rows)  # noqa: S608  # our own name


def delete(db: sqlite3.Connection, store_row: int, rows: Iterable[WordRow]) -> None:
    name = table(store_row)
    statement = f"INSERT INTO {name} ({name}, rowid, text, heading) VALUES ('delete', ?, ?, ?)"  # noqa: S608
    db.executemany(statement, rows)


def shrink(db: sqlite3.Connection, store_row: int, num_rows: int) -> bool:
    """Take some of the content away from below, for dropping or clearing a large table at once takes long; false if
    there is none. From the first call on nobody may read the table, nor put rows in or take any out, but `drop` and
    `clear` work.
    """
    data = f"{table(store_row)}_data"
    some = f"SELECT id FROM {data} WHERE id > {_LAST_OVERHEAD_ID} LIMIT ?"  # noqa: S608  # our own names
    return db.execute(f"DELETE FROM {data} WHERE id IN ({some})", (num_rows,)).rowcount > 0  # noqa: S608


def clear(db: sqlite3.Connection, store_row: int) -> None:
    name = table(store_row)
    db.execute(f"INSERT INTO {name} ({name}) VALUES ('delete-all')")  # noqa: S608
