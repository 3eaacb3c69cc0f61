"""Texts of documents, each once, in pieces, so that a span of a long one is read without the rest."""

from __future__ import annotations

import sqlite3

PIECE = 4096
"""Code points in a piece. Databases have been written with it: another number needs a migration."""


def insert(db: sqlite3.Connection, document_id: int, text: str) -> None:
    pieces = ((document_id, start, text[start : start + PIECE]) for start in range(0, len(text), PIECE))
    db.executemany("INSERT INTO texts (document_id, start, text) VALUES (?, ?, ?)", pieces)


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
