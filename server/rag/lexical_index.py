"""Word search in memory: BM25 over postings that never change (`segments.py`).

A query is a bag of words: chunks with any of them count; those with more, and rarer, words come first. All postings of
all its words are looked at, common ones too: in a store about one subject, its common words say most.

FTS5's own ranking reads the length of each row that matches from a table, a millisecond for a thousand rows; in a
large store nearly all rows match some word of a question.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from server.rag.index_snapshot import Ids, SnapshotStamp, read_snapshot, write_snapshot
from server.rag.postings import Counts, Positions, Postings, checked_postings, join_postings
from server.rag.segments import Segment, Segments, crowded
from server.rag.terms import query_terms

MAX_QUERY_CHARS = 10_000
MAX_QUERY_TERMS = 64
"""The rarest of a longer query count."""

_K1, _B = 1.5, 0.75  # as in bm25s, and about as good as any

_FEW = 1 / 16  # of all chunks: so many are looked for one by one

Scores = npt.NDArray[np.float32]
Found = tuple[Ids, Scores]


class LexicalIndex:
    """Words of one store's chunks. Any thread may call any method; searches never wait."""

    def __init__(self, generation: int, postings: Iterable[Postings] = ()) -> None:
        """Index the chunks that a store has at a generation."""
        self._segments = Segments(generation, (each for each in postings if len(each.ids)), choose=crowded, join=_join)

    @classmethod
    def load(cls, path: Path, expected: SnapshotStamp) -> Self:
        """Read what `save` wrote. Errors as of `read_snapshot`."""
        return cls(expected.generation, [checked_postings(each) for each in read_snapshot(path, expected)])

    @property
    def generation(self) -> int:
        return self._segments.contents.generation

    @property
    def num_bytes(self) -> int:
        return self._segments.contents.num_bytes

    def search(self, query: str, k: int, *, allowed_ids: Ids | None = None) -> Found:
        """Find the `k` best chunks by their words.

        Args:
            query: Any text; the first `MAX_QUERY_CHARS` count.
            allowed_ids: Only these chunks count, exactly; None: all.

        Returns:
            Ids int64 [n] and BM25 scores float32 [n], best first, ties by id. Fewer than `k`, down to none, where no
            more chunks have any of the words.
        """
        contents = self._segments.contents
        segments = contents.segments
        weights = _weigh(query_terms(query[:MAX_QUERY_CHARS]), segments, contents.num_alive)
        if not weights:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        mean_length = sum(map(_length, segments)) / contents.num_alive
        allowed = None if allowed_ids is None else np.unique(allowed_ids)
        found = [_search(segment, weights, mean_length, k, allowed) for segment in segments]
        ids, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def apply(self, generation: int, added: Postings, removed_ids: Ids) -> None:
        """Take over one change. An id that is added replaces what it was before; unknown ids are not removed.

        Many small changes make many segments: call `merge` from time to time.
        """
        self._segments.apply(generation, added if len(added.ids) else None, removed_ids)

    def merge(self) -> bool:
        """Make one segment of those that are due. False if none are: call again until then. Searches go on."""
        return self._segments.merge()

    def save(self, path: Path, mark: int = 0) -> SnapshotStamp:
        """Write what is there now, and has this mark, to a file, for `load`. Errors as of `write_snapshot`."""
        contents = self._segments.contents
        stamp = contents.stamp(mark)
        write_snapshot(path, stamp, [_alive(segment).arrays() for segment in contents.segments])
        return stamp


def _join(segments: Sequence[Segment[Postings]]) -> Postings:
    return join_postings([_alive(segment) for segment in segments])


def _alive(segment: Segment[Postings]) -> Postings:
    return segment.rows if segment.alive is None else segment.rows.only(segment.alive)


def _length(segment: Segment[Postings]) -> float:
    lengths = segment.rows.lengths if segment.alive is None else segment.rows.lengths[segment.alive]
    return float(lengths.sum(dtype=np.float64))


def _weigh(
    terms: Mapping[int, int], segments: Sequence[Segment[Postings]], num_chunks: int
) -> list[tuple[int, np.float32]]:
    """Return the terms that chunks have, the rarest first, with what one occurrence in a chunk is worth."""
    weighed = []
    for term, num_times in terms.items():
        num_with = sum(_num_with(segment, term) for segment in segments)
        if num_with:
            rareness = math.log(1 + (num_chunks - num_with + 0.5) / (num_with + 0.5))
            weighed.append((rareness, term, np.float32(num_times * rareness)))
    weighed.sort(reverse=True)
    return [(term, weight) for _, term, weight in weighed[:MAX_QUERY_TERMS]]


def _num_with(segment: Segment[Postings], term: int) -> int:
    positions = segment.rows.positions[segment.rows.span(term)]
    return len(positions) if segment.alive is None else int(np.count_nonzero(segment.alive[positions]))


def _search(
    segment: Segment[Postings],
    weights: Sequence[tuple[int, np.float32]],
    mean_length: float,
    k: int,
    allowed: Ids | None,
) -> Found:
    rows = segment.rows
    mask = segment.mask(allowed)
    if mask is not None and np.count_nonzero(mask) <= _FEW * len(mask):
        places = np.flatnonzero(mask).astype(np.uint32)
        scores = _scores_of(places, rows, weights, mean_length)
    else:
        places = np.arange(len(rows.ids), dtype=np.uint32)
        scores = _scores(rows, weights, mean_length)
        if mask is not None:
            scores *= mask
    best = _best(scores, k)
    return rows.ids[places[best]], scores[best]


def _scores(rows: Postings, weights: Sequence[tuple[int, np.float32]], mean_length: float) -> Scores:
    """Score all chunks: for each term, those that have it."""
    scores = np.zeros(len(rows.ids), np.float32)
    norms = _norms(rows.lengths, mean_length)
    for term, weight in weights:
        span = rows.span(term)
        positions = rows.positions[span]
        scores[positions] += _worth(weight, rows.counts[span], norms[positions])
    return scores


def _scores_of(
    places: Positions, rows: Postings, weights: Sequence[tuple[int, np.float32]], mean_length: float
) -> Scores:
    """Score a few chunks, to the same bits: each is looked for among those that have a term."""
    scores = np.zeros(len(places), np.float32)
    norms = _norms(rows.lengths[places], mean_length)
    for term, weight in weights:
        span = rows.span(term)
        positions = rows.positions[span]
        if len(positions):
            found = np.minimum(np.searchsorted(positions, places), len(positions) - 1)
            has = positions[found] == places
            scores[has] += _worth(weight, rows.counts[span][found[has]], norms[has])
    return scores


def _norms(lengths: Scores, mean_length: float) -> Scores:
    return _K1 * (1 - _B + _B / mean_length * lengths)


def _worth(weight: np.float32, counts: Counts, norms: Scores) -> Scores:
    occurrences = counts.astype(np.float32)
    return weight * (_K1 + 1) * occurrences / (occurrences + norms)


def _best(scores: Scores, k: int) -> npt.NDArray[np.int64]:
    """Positions of the `k` best above 0, in no order; of equal ones the first."""
    found = np.flatnonzero(scores)
    if len(found) <= k:
        return found
    bound = np.partition(scores[found], len(found) - k)[len(found) - k]
    better = found[scores[found] > bound]
    return np.concatenate([better, found[scores[found] == bound][: k - len(better)]])
