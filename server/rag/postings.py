"""Which words are in which chunks, and how often, in arrays. What a word is, `terms.py` says."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from server.rag.index_snapshot import Arrays, Ids, SnapshotRefused
from server.rag.rows import chunks
from server.rag.segments import Mask
from server.rag.terms import TERM, ChunkTerms

Singles = npt.NDArray[np.float32]
Terms = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint8]
Starts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Postings:
    """`segments.Rows`: for each term the chunks that have it.

    Attributes:
        ids: int64 [num_chunks], ascending.
        lengths: float32 [num_chunks], occurrences in each.
        terms: uint64 [num_terms], `term_key`s in ascending order.
        starts: int64 [num_terms + 1], where each term's chunks begin in the following two; the last is their end.
        positions: uint32 [num_postings], of the chunks in `ids`; those of a term are ascending.
        counts: uint8 [num_postings], occurrences in the chunk and in the headings above it.
    """

    ids: Ids
    lengths: Singles
    terms: Terms
    starts: Starts
    positions: Positions
    counts: Counts

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    def arrays(self) -> Arrays:
        return self.ids, self.lengths, self.terms, self.starts, self.positions, self.counts

    @property
    def sizes(self) -> Starts:
        """int64 [num_terms], how many chunks each term has; at least one."""
        return np.diff(self.starts)

    def span(self, term: int) -> slice:
        """Where in `positions` and `counts` a term is; empty if no chunk has it."""
        place = int(np.searchsorted(self.terms, np.uint64(term)))
        if place == len(self.terms) or self.terms[place] != term:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def only(self, alive: Mask) -> Postings:
        """Keep some chunks, and the terms that these have."""
        moved = np.zeros(len(self.ids), np.uint32)
        moved[alive] = np.arange(np.count_nonzero(alive), dtype=np.uint32)
        is_kept = alive[self.positions]
        num_kept_before = np.append(0, np.cumsum(is_kept))
        starts = num_kept_before[self.starts]
        is_used = starts[1:] > starts[:-1]
        return Postings(
            ids=self.ids[alive],
            lengths=self.lengths[alive],
            terms=self.terms[is_used],
            starts=np.append(starts[:-1][is_used], starts[-1]),
            positions=moved[self.positions[is_kept]],
            counts=self.counts[is_kept],
        )


def postings_of(ids: Ids, terms: Sequence[ChunkTerms]) -> Postings:
    """Turn what chunks have of terms around; `ids` are theirs, ascending."""
    records = np.frombuffer(b"".join(each.packed for each in terms), TERM)
    sizes = [len(each.packed) // TERM.itemsize for each in terms]
    order = np.argsort(records["key"], kind="stable")  # so that the chunks of a term stay in order
    keys = records["key"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return Postings(
        ids=ids,
        lengths=np.array([each.num_words for each in terms], np.float32),
        terms=keys[starts],
        starts=np.append(starts, len(keys)),
        positions=np.repeat(np.arange(len(ids), dtype=np.uint32), sizes)[order],
        counts=records["count"][order],
    )


def read_postings(db: sqlite3.Connection, store_row: int) -> Postings:
    """Read all words of a store; a second for 100,000 chunks."""
    nothing = postings_of(np.empty(0, np.int64), [])
    return join_postings([nothing, *(postings_of(ids, terms) for ids, terms in chunks.read_terms(db, store_row))])


def join_postings(parts: Sequence[Postings]) -> Postings:
    """Make one of several; none has a chunk of another."""
    parts = sorted(parts, key=lambda part: part.ids[:1].tolist())
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    places = np.empty(len(ids), np.uint32)
    places[order] = np.arange(len(ids), dtype=np.uint32)
    terms = np.unique(np.concatenate([part.terms for part in parts]))
    slots = [np.searchsorted(terms, part.terms) for part in parts]
    sizes = np.zeros(len(terms), np.int64)
    for part, its_slots in zip(parts, slots, strict=True):
        sizes[its_slots] += part.sizes
    starts = np.append(0, np.cumsum(sizes))
    positions, counts = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.uint8)
    free, first = starts[:-1].copy(), 0
    for part, its_slots in zip(parts, slots, strict=True):
        target = _ranges(free[its_slots], part.sizes)
        positions[target] = places[first : first + len(part.ids)][part.positions]
        counts[target] = part.counts
        free[its_slots] += part.sizes
        first += len(part.ids)
    joined = Postings(
        ids=ids[order],
        lengths=np.concatenate([part.lengths for part in parts])[order],
        terms=terms,
        starts=starts,
        positions=positions,
        counts=counts,
    )
    return joined if np.all(ids[1:] > ids[:-1]) else _in_order(joined)


def checked_postings(arrays: Arrays) -> Postings:
    """Refuse arrays of a file that are not those of postings; return copies."""
    types = [(array.dtype.str, array.ndim) for array in arrays]
    if types != [("<i8", 1), ("<f4", 1), ("<u8", 1), ("<i8", 1), ("<u4", 1), ("|u1", 1)]:
        raise SnapshotRefused("its arrays are not those of words")
    ids, lengths, terms, starts, positions, counts = (array.copy() for array in arrays)
    if (
        len(lengths) != len(ids)
        or len(starts) != len(terms) + 1
        or len(positions) != len(counts)
        or np.any(terms[1:] <= terms[:-1])
        or starts[0] != 0
        or starts[-1] != len(positions)
        or np.any(starts[1:] <= starts[:-1])
        or np.any(positions >= len(ids))
        or not _are_in_order(starts, positions)
    ):
        raise SnapshotRefused("its arrays contradict one another")
    return Postings(ids=ids, lengths=lengths, terms=terms, starts=starts, positions=positions, counts=counts)


def _are_in_order(starts: Starts, positions: Positions) -> bool:
    is_larger = positions[1:] > positions[:-1]
    is_larger[starts[1:-1] - 1] = True  # the first of each term
    return bool(np.all(is_larger))


def _in_order(postings: Postings) -> Postings:
    """Sort the chunks of each term."""
    owners = np.repeat(np.arange(len(postings.terms)), postings.sizes)
    order = np.argsort(owners * len(postings.ids) + postings.positions)
    return replace(postings, positions=postings.positions[order], counts=postings.counts[order])


def _ranges(starts: Starts, sizes: Starts) -> npt.NDArray[np.integer[Any]]:
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


def _index_type(starts: Starts, sizes: Starts) -> type[np.integer[Any]]:
    return np.int32 if np.max(starts + sizes, initial=0) < 2**31 else np.int64
