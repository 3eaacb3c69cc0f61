"""Which words are in which chunks, and how often, in arrays.

FTS5 decides what a word is, for chunks and for queries: all is read off its own tables, those of the database or, for
a few texts, one in memory with the same tokenizer. No text of anybody is ever read as a query of FTS5's.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from server.rag.index_snapshot import Arrays, Ids, SnapshotRefused
from server.rag.rows import words
from server.rag.rows.words import WordRow
from server.rag.segments import Mask

Singles = npt.NDArray[np.float32]
Terms = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.int64]

_MEMORY_ROW = 1  # the store of a database that has but one
_CHARS_PER_BATCH = 1 << 23  # of what SQLite says in decimal: some million occurrences, 50 MB while they are read
_MAX_COUNT = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Postings:
    """`segments.Rows`: for each term the chunks that have it.

    Attributes:
        ids: int64 [num_chunks], ascending.
        lengths: float32 [num_chunks], occurrences in each.
        terms: uint64 [num_terms], `term_key`s in ascending order.
        starts: int64 [num_terms + 1], where each term's chunks begin in the following two, and where the last ones end.
        positions: uint32 [num_postings], of the chunks in `ids`.
        counts: uint8 [num_postings], twice the occurrences in the chunk: one in a heading, which all chunks below it
            repeat, is half a one.
    """

    ids: Ids
    lengths: Singles
    terms: Terms
    starts: npt.NDArray[np.int64]
    positions: Positions
    counts: Counts

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def arrays(self) -> Arrays:
        return self.ids, self.lengths, self.terms, self.starts, self.positions, self.counts

    def span(self, term: int) -> slice:
        """Where in `positions` and `counts` a term is; empty if no chunk has it."""
        place = int(np.searchsorted(self.terms, np.uint64(term)))
        if place == len(self.terms) or self.terms[place] != term:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


def term_key(term: str) -> int:
    """Name a term by 64 bits: two of a million have the same in one of 30 million stores."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def query_terms(text: str) -> dict[int, int]:
    """Return the keys of a query's terms, with how often it has each."""
    whole = text.encode(errors="replace").decode()  # SQLite takes no halves of surrogate pairs
    with _table_in_memory([(1, whole, "")]) as db:
        db.execute(f"CREATE VIRTUAL TABLE counts USING fts5vocab ({words.table(_MEMORY_ROW)}, row)")
        return {term_key(term): count for term, count in db.execute("SELECT term, cnt FROM counts")}


def postings_of(rows: Iterable[WordRow]) -> Postings:
    """Look up the words of a few chunks."""
    listed = sorted(rows)
    with _table_in_memory(listed) as db:
        return read_postings(db, _MEMORY_ROW, np.array([chunk_id for chunk_id, _, _ in listed], np.int64))


def read_postings(db: sqlite3.Connection, store_row: int, ids: Ids) -> Postings:
    """Read all words of a store; `ids` are its chunks', ascending, of the same snapshot. Seconds for 100,000 chunks."""
    terms, lengths = [np.empty(0, np.uint64)], np.zeros(len(ids))
    sizes, positions, counts = [np.empty(0, np.int64)], [np.empty(0, np.uint32)], [np.empty(0, np.uint8)]
    places_of = _finder(ids)
    for batch in _batches(db, words.terms_table(store_row)):
        found = _Batch.read(batch, places_of)
        terms.append(found.terms)
        sizes.append(found.sizes)
        positions.append(found.positions.astype(np.uint32))
        counts.append(np.minimum(found.counts, _MAX_COUNT).astype(np.uint8))
        lengths += np.bincount(found.positions, weights=found.counts, minlength=len(ids)) / 2
    return _in_order(
        ids,
        lengths.astype(np.float32),
        terms=np.concatenate(terms),
        sizes=np.concatenate(sizes),
        positions=np.concatenate(positions),
        counts=np.concatenate(counts),
    )


def join_postings(parts: Sequence[tuple[Postings, Mask | None]]) -> Postings:
    """Make one of several, of the chunks that their masks leave; none has a chunk of another."""
    ids = np.concatenate([part.ids if alive is None else part.ids[alive] for part, alive in parts])
    lengths = np.concatenate([part.lengths if alive is None else part.lengths[alive] for part, alive in parts])
    order = np.argsort(ids, kind="stable")
    places = np.empty(len(ids), np.int32)
    places[order] = np.arange(len(ids), dtype=np.int32)
    moved, start = [], 0
    for part, alive in parts:
        num_alive = len(part.ids) if alive is None else int(np.count_nonzero(alive))
        moved.append(_move(part, alive, places[start : start + num_alive]))
        start += num_alive
    return _in_order(
        ids[order],
        lengths[order],
        terms=np.concatenate([part.terms for part, _ in parts]),
        sizes=np.concatenate([sizes for sizes, _, _ in moved]),
        positions=np.concatenate([positions for _, positions, _ in moved]),
        counts=np.concatenate([counts for _, _, counts in moved]),
    )


def checked_postings(arrays: Arrays) -> Postings:
    """Refuse arrays of a file that are not those of postings; return copies."""
    types = [(array.dtype.str, array.ndim) for array in arrays]
    if types != [("<i8", 1), ("<f4", 1), ("<u8", 1), ("<i8", 1), ("<u4", 1), ("|u1", 1)]:
        raise SnapshotRefused("its arrays are not those of words")
    ids, lengths, terms, starts, positions, counts = arrays
    if (
        len(lengths) != len(ids)
        or len(starts) != len(terms) + 1
        or len(positions) != len(counts)
        or (starts[0], starts[-1]) != (0, len(positions))
        or np.any(starts[1:] < starts[:-1])
        or np.any(terms[1:] <= terms[:-1])
        or np.any(positions >= len(ids))
    ):
        raise SnapshotRefused("its arrays contradict one another")
    ids, lengths, terms, starts, positions, counts = (array.copy() for array in arrays)
    return Postings(ids=ids, lengths=lengths, terms=terms, starts=starts, positions=positions, counts=counts)


def _table_in_memory(rows: Iterable[WordRow]) -> closing[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    words.create(db, _MEMORY_ROW)
    words.insert(db, _MEMORY_ROW, rows)
    return closing(db)


def _finder(ids: Ids) -> Callable[[Ids], npt.NDArray[np.int64]]:
    """Return what says where in `ids` some of them are. Millions are asked for: by a table, if it is not too large."""
    if not len(ids) or ids[-1] - ids[0] > 16 * len(ids):
        return lambda wanted: np.asarray(np.searchsorted(ids, wanted), np.int64)
    places = np.zeros(ids[-1] - ids[0] + 1, np.int64)
    places[ids - ids[0]] = np.arange(len(ids))
    return lambda wanted: places[wanted - ids[0]]


def _batches(db: sqlite3.Connection, table: str) -> Iterator[list[tuple[str, str]]]:
    """Yield terms with all their occurrences: twice the id of the chunk, and 1 more in a heading."""
    rows = db.execute(f"SELECT term, group_concat(2 * doc + (col = 'heading'), ' ') FROM {table} GROUP BY term")  # noqa: S608  # our own name
    batch, num_chars = [], 0
    for row in rows:
        batch.append(row)
        num_chars += len(row[1])
        if num_chars > _CHARS_PER_BATCH:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some terms; `sizes` [num_terms] is how many of the postings, `positions` and `counts`, each has."""

    terms: Terms
    sizes: Sizes
    positions: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def read(cls, rows: Sequence[tuple[str, str]], places_of: Callable[[Ids], Sizes]) -> _Batch:
        occurrences = np.fromstring(" ".join(listed for _, listed in rows), np.int64, sep=" ")
        owners = np.repeat(np.arange(len(rows)), [listed.count(" ") + 1 for _, listed in rows])
        chunk_ids, halves = occurrences >> 1, 2 - (occurrences & 1)
        is_first = np.append(True, (chunk_ids[1:] != chunk_ids[:-1]) | (owners[1:] != owners[:-1]))
        firsts = np.flatnonzero(is_first)
        return cls(
            terms=np.array([term_key(term) for term, _ in rows], np.uint64),
            sizes=np.bincount(owners[firsts], minlength=len(rows)),
            positions=places_of(chunk_ids[firsts]),
            counts=np.add.reduceat(halves, firsts),
        )


def _move(part: Postings, alive: Mask | None, places: npt.NDArray[np.int32]) -> tuple[Sizes, Positions, Counts]:
    """Return how many postings each term keeps, and these, with `places` as the positions of the chunks alive."""
    if alive is None:
        return np.diff(part.starts), places[part.positions].astype(np.uint32), part.counts
    moved = np.zeros(len(part.ids), np.uint32)
    moved[alive] = places
    is_kept = alive[part.positions]
    num_kept_before = np.append(0, np.cumsum(is_kept))
    return np.diff(num_kept_before[part.starts]), moved[part.positions[is_kept]], part.counts[is_kept]


def _in_order(
    ids: Ids,
    lengths: Singles,
    *,
    terms: Terms,
    sizes: Sizes,
    positions: Positions,
    counts: Counts,
) -> Postings:
    """Put postings, `sizes` of which follow one another for each of `terms`, in the order of terms.

    Terms may be there several times, or without postings.
    """
    order = np.argsort(terms, kind="stable")
    starts = np.cumsum(sizes) - sizes
    moved = _ranges(starts[order], sizes[order])
    names, firsts = np.unique(terms[order], return_index=True)
    totals = np.add.reduceat(sizes[order], firsts) if len(firsts) else np.empty(0, np.int64)
    is_used = totals > 0
    return Postings(
        ids=ids,
        lengths=lengths,
        terms=names[is_used],
        starts=np.append(0, np.cumsum(totals[is_used])),
        positions=positions[moved],
        counts=counts[moved],
    )


def _ranges(starts: npt.NDArray[np.int64], sizes: Sizes) -> npt.NDArray[np.integer[Any]]:
    """Return start, start + 1, ... of each, one after the other."""
    ends = np.cumsum(sizes)
    num_places = int(ends[-1]) if len(ends) else 0
    dtype = np.int32 if num_places < 2**31 else np.int64  # there are millions, and they are thrown away at once
    places = np.repeat((starts - (ends - sizes)).astype(dtype), sizes)
    places += np.arange(num_places, dtype=dtype)
    return places
