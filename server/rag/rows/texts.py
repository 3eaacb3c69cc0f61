"""Texts of documents, each once, in pieces, so that a span of a long one is read without the rest."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence

PIECE = 4096
"""Most code points in a piece. Databases have been written with it: a smaller number needs a migration."""


def insert(db: sqlite3.Connection, document_id: int, text: str, pages: Sequence[tuple[int, int]] = ()) -> None:
    """Store a text in pieces of one page at most; `pages` are those of `ChunkedDocument`."""
    number_at = dict(pages)
    page = None
    pieces: list[tuple[int, int, str, int | None]] = []
    for start, end in itertools.pairwise(sorted({*range(0, len(text), PIECE), *number_at, len(text)})):
        page = number_at.get(start, page)
        pieces.append((document_id, start, text[start:end], page))
    db.executemany("INSERT INTO texts (document_id, start, text, page) VALUES (?, ?, ?, ?)", pieces)


def page_at(db: sqlite3.Connection, chunk_id: int, offset: int) -> int | None:
    """Return the page that a place in a chunk's document is on; None if that is not known, or the chunk is gone.

    Not by the document: its id becomes another one when its file is added again, while its chunks still stand.
    """
    query = (
        "SELECT t.page FROM chunks AS c JOIN texts AS t ON t.document_id = c.document_id "
        "WHERE c.id = ? AND t.start <= ? ORDER BY t.start DESC LIMIT 1"
    )
    found = db.execute(query, (chunk_id, offset)).fetchone()
    return None if found is None else found[0]


def pages(db: sqlite3.Connection, document_id: int) -> list[tuple[int, int]]:
    """Return where pages begin, and their numbers, as `insert` was told."""
    pieces = db.execute("SELECT start, page FROM texts WHERE document_id = ? ORDER BY start", (document_id,))
    found: list[tuple[int, int]] = []
    for start, page in pieces:
        if page is not None and (not found or found[-1][1] != page):
            found.append((start, page))
    return found


def whole(db: sqlite3.Connection, document_id: int) -> str:
    """Return the text of a document; empty if nothing is stored."""
    pieces = db.execute("SELECT text FROM texts WHERE document_id = ? ORDER BY start", (document_id,))
    return "".join(text for (text,) in pieces)


def cut(db: sqlite3.Connection, document_id: int, start: int, end: int) -> str:
    """Return the code points from `start` to before `end` of a document."""
    pieces = db.execute(
        "SELECT start, text FROM texts WHERE document_id = ? AND start > ? AND start < ? ORDER BY start",
        (document_id, start - PIECE, end),
    ).fetchall()
    if not pieces:
        return ""
    first = pieces[0][0]
    return "".join(text for _, text in pieces)[start - first : end - first]
