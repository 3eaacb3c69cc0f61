"""The terms of texts: what FTS5's tokenizer makes of their words (Porter's stemmer, Unicode, no diacritics).

FTS5 decides what a word is, for chunks and for queries, in tables in memory that nobody else sees: none is in the
database, where a table for each store would make each change of the schema dearer for all of them. No text of anybody
is ever read as a query of FTS5's.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

TERM = np.dtype([("key", "<u8"), ("count", "u1")])
"""A term of a chunk: its `term_key`, and how often the chunk has it, or 255 if that is more. No padding."""

_MAX_COUNT = 255
_TEXTS_PER_TABLE = 500  # reading what SQLite says of them holds the interpreter for 10 ms


class ChunkTerms(NamedTuple):
    """What is searched of a chunk by words.

    Attributes:
        num_words: Occurrences of all terms.
        packed: Array of `TERM`, by ascending key, each key once.
    """

    num_words: int
    packed: bytes


def searched_text(text: str, *, heading: str, columns: str, context: str) -> str:
    """Tell what of a chunk is searched by words."""
    return f"{context}\n{columns}\n{text}\n{heading}"


def chunk_terms(texts: Sequence[str]) -> list[ChunkTerms]:
    """Take texts apart; 10 ms for 100 of 600 characters, in any thread."""
    starts = range(0, len(texts), _TEXTS_PER_TABLE)
    return [terms for start in starts for terms in _terms_of(texts[start : start + _TEXTS_PER_TABLE])]


def query_terms(text: str) -> dict[int, int]:
    """Return the keys of a query's terms, with how often it has each."""
    whole = text.encode(errors="replace").decode()  # SQLite takes no halves of surrogate pairs
    with _table_of([whole], "row") as db:
        return {term_key(term): count for term, count in db.execute("SELECT term, cnt FROM terms")}


def term_key(term: str) -> int:
    """Name a term by 64 bits: two of a million have the same in one of 30 million stores."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def _terms_of(texts: Sequence[str]) -> list[ChunkTerms]:
    with _table_of(texts, "instance") as db:
        listed = db.execute("SELECT term, group_concat(doc, ' ') FROM terms GROUP BY term").fetchall()
    if not listed:
        return [ChunkTerms(0, b"")] * len(texts)
    keys = np.array([term_key(term) for term, _ in listed], np.uint64)
    order = np.argsort(keys)
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.arange(len(keys))
    places = np.fromstring(" ".join(each for _, each in listed), np.int64, sep=" ")  # in `texts`, of each occurrence
    of_term = np.repeat(ranks, [each.count(" ") + 1 for _, each in listed])
    # By text, then by key: both in one number.
    found, counts = np.unique(places * len(keys) + of_term, return_counts=True)
    packed = np.empty(len(found), TERM)
    packed["key"] = keys[order][found % len(keys)]
    packed["count"] = np.minimum(counts, _MAX_COUNT)
    bounds = np.searchsorted(found, np.arange(len(texts) + 1) * len(keys)).tolist()
    num_words = np.bincount(places, minlength=len(texts)).tolist()
    return [
        ChunkTerms(number, packed[start:end].tobytes())
        for number, start, end in zip(num_words, bounds[:-1], bounds[1:], strict=True)
    ]


def _table_of(texts: Sequence[str], kind: str) -> closing[sqlite3.Connection]:
    """Make a database with a table `terms`, which is FTS5's vocabulary of some texts; rows are their places."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute(
        "CREATE VIRTUAL TABLE texts USING fts5 (text, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    db.execute(f"CREATE VIRTUAL TABLE terms USING fts5vocab (texts, {kind})")
    db.execute("BEGIN")
    db.executemany("INSERT INTO texts (rowid, text) VALUES (?, ?)", enumerate(texts))
    return closing(db)
