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
_CHARS_PER_BATCH = 1 << 21  # of what SQLite says in decimal; reading that holds the interpreter for 10 ms
_MAX_COUNT = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Postings:
    """`segments.Rows`: for each term the chunks that have it.

    Attributes:
        ids: int64 [num_chunks], ascending.
        lengths: float32 [num_chunks], occurrences in each.
        terms: uint64 [num_terms], `term_key`s in ascending order.
        starts, sizes: int64 [num_terms], where each term's chunks begin in the following two, and how many they are.
        positions: uint32 [num_postings], of the chunks in `ids`.
        counts: uint8 [num_postings], occurrences in the chunk and in the headings above it.
    """

    ids: Ids
    lengths: Singles
    terms: Terms
    starts: Sizes
    sizes: Sizes
    positions: Positions
    counts: Counts

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def arrays(self) -> Arrays:
        return self.ids, self.lengths, self.terms, self.starts, self.sizes, self.positions, self.counts

    def span(self, term: int) -> slice:
        """Where in `positions` and `counts` a term is; empty if no chunk has it."""
        place = int(np.searchsorted(self.terms, np.uint64(term)))
        if place == len(self.terms) or self.terms[place] != term:
            return slice(0, 0)
        start = int(self.starts[place])
        return slice(start, start + int(self.sizes[place]))

    def in_order(self) -> slice | npt.NDArray[np.integer[Any]]:
        """What takes `positions` and `counts` in the order of terms."""
        is_in_order = np.array_equal(self.starts, np.cumsum(self.sizes) - self.sizes)
        return slice(None) if is_in_order else _ranges(self.starts, self.sizes)

    def only(self, alive: Mask) -> Postings:
        """Keep some chunks, and the terms that these have."""
        moved = np.zeros(len(self.ids), np.uint32)
        moved[alive] = np.arange(np.count_nonzero(alive), dtype=np.uint32)
        is_kept = alive[self.positions]
        num_kept_before = np.append(0, np.cumsum(is_kept))
        starts, ends = num_kept_before[self.starts], num_kept_before[self.starts + self.sizes]
        is_used = ends > starts
        return Postings(
            ids=self.ids[alive],
            lengths=self.lengths[alive],
            terms=self.terms[is_used],
            starts=starts[is_used],
            sizes=(ends - starts)[is_used],
            positions=moved[self.positions[is_kept]],
            counts=self.counts[is_kept],
        )


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
    lengths = np.zeros(len(ids))
    terms, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    positions, counts = [np.empty(0, np.uint32)], [np.empty(0, np.uint8)]
    places_of = _finder(ids)
    for batch in _batches(db, words.terms_table(store_row)):
        found = _Batch.read(batch, places_of)
        terms.append(found.terms)
        sizes.append(found.sizes)
        positions.append(found.positions.astype(np.uint32))
        counts.append(np.minimum(found.counts, _MAX_COUNT).astype(np.uint8))
        lengths += np.bincount(found.positions, weights=found.counts, minlength=len(ids))
    all_terms, all_sizes = np.concatenate(terms), np.concatenate(sizes)
    order = np.argsort(all_terms)
    return Postings(
        ids=ids,
        lengths=lengths.astype(np.float32),
        terms=all_terms[order],
        starts=(np.cumsum(all_sizes) - all_sizes)[order],
        sizes=all_sizes[order],
        positions=np.concatenate(positions),
        counts=np.concatenate(counts),
    )


def join_postings(parts: Sequence[Postings]) -> Postings:
    """Make one of several; none has a chunk of another."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    places = np.empty(len(ids), np.uint32)
    places[order] = np.arange(len(ids), dtype=np.uint32)
    terms = np.unique(np.concatenate([part.terms for part in parts]))
    slots = [np.searchsorted(terms, part.terms) for part in parts]
    sizes = np.zeros(len(terms), np.int64)
    for part, its_slots in zip(parts, slots, strict=True):
        sizes[its_slots] += part.sizes
    starts = np.cumsum(sizes) - sizes
    positions, counts = np.empty(sizes.sum(), np.uint32), np.empty(sizes.sum(), np.uint8)
    free, first = starts.copy(), 0
    for part, its_slots in zip(parts, slots, strict=True):
        source, target = part.in_order(), _ranges(free[its_slots], part.sizes)
        positions[target] = places[first : first + len(part.ids)][part.positions[source]]
        counts[target] = part.counts[source]
        free[its_slots] += part.sizes
        first += len(part.ids)
    return Postings(
        ids=ids[order],
        lengths=np.concatenate([part.lengths for part in parts])[order],
        terms=terms,
        starts=starts,
        sizes=sizes,
        positions=positions,
        counts=counts,
    )


def checked_postings(arrays: Arrays) -> Postings:
    """Refuse arrays of a file that are not those of postings; return copies."""
    types = [(array.dtype.str, array.ndim) for array in arrays]
    if types != [("<i8", 1), ("<f4", 1), ("<u8", 1), ("<i8", 1), ("<i8", 1), ("<u4", 1), ("|u1", 1)]:
        raise SnapshotRefused("its arrays are not those of words")
    ids, lengths, terms, starts, sizes, positions, counts = (array.copy() for array in arrays)
    if (
        len(lengths) != len(ids)
        or not len(terms) == len(starts) == len(sizes)
        or len(positions) != len(counts)
        or np.any(terms[1:] <= terms[:-1])
        or np.any((starts < 0) | (sizes < 0) | (starts > len(positions) - sizes))
        or np.any(positions >= len(ids))
    ):
        raise SnapshotRefused("its arrays contradict one another")
    return Postings(
        ids=ids, lengths=lengths, terms=terms, starts=starts, sizes=sizes, positions=positions, counts=counts
    )


def _table_in_memory(rows: Iterable[WordRow]) -> closing[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    words.create(db, _MEMORY_ROW)
    words.insert(db, _MEMORY_ROW, rows)
    return closing(db)


def _finder(ids: Ids) -> Callable[[Ids], npt.NDArray[np.int64]]:
    """Return what says where in `ids` some of them are. Millions are asked for: by a table, if it is not too large."""
    if not len(ids) or ids[-1] - ids[0] > 16 * len(ids):
        return lambda wanted: np.searchsorted(ids, wanted)
    places = np.zeros(ids[-1] - ids[0] + 1, np.int64)
    places[ids - ids[0]] = np.arange(len(ids))
    return lambda wanted: places[wanted - ids[0]]


def _batches(db: sqlite3.Connection, table: str) -> Iterator[list[tuple[str, str]]]:
    """Yield terms with the chunk of each of their occurrences."""
    rows = db.execute(f"SELECT term, group_concat(doc, ' ') FROM {table} GROUP BY term")  # noqa: S608  # our own name
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
        chunk_ids = np.fromstring(" ".join(listed for _, listed in rows), np.int64, sep=" ")
        owners = np.repeat(np.arange(len(rows)), [listed.count(" ") + 1 for _, listed in rows])
        is_first = np.append(True, (chunk_ids[1:] != chunk_ids[:-1]) | (owners[1:] != owners[:-1]))
        firsts = np.flatnonzero(is_first)
        return cls(
            terms=np.array([term_key(term) for term, _ in rows], np.uint64),
            sizes=np.bincount(owners[firsts], minlength=len(rows)),
            positions=places_of(chunk_ids[firsts]),
            counts=np.diff(np.append(firsts, len(chunk_ids))),
        )


def _ranges(starts: Sizes, sizes: Sizes) -> npt.NDArray[np.integer[Any]]:
    """Return start, start + 1, ... of each, one after the other. There are millions: hence no array but the result."""
    is_used = sizes > 0
    starts, sizes = starts[is_used], sizes[is_used]
    ends = np.cumsum(sizes)
    places = np.ones(ends[-1] if len(ends) else 0, _index_type(starts, sizes))
    if len(ends):
        places[0] = starts[0]
        places[ends[:-1]] = starts[1:] - (starts[:-1] + sizes[:-1] - 1)
        np.cumsum(places, out=places)
    return places


def _index_type(starts: Sizes, sizes: Sizes) -> type[np.integer[Any]]:
    return np.int32 if np.max(starts + sizes, initial=0) < 2**31 else np.int64
