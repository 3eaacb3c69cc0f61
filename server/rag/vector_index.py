"""Nearest neighbours in memory: FAISS over segments that never change (`segments.py`).

Vectors are fp16, as the store has them, so an index that was read back gives the very scores of the one that grew.
Small segments are scanned whole. Beyond `MAX_SCANNED_ROWS` they are cut into lists of neighbours (IVF), of which a
search scans the nearest; these hold the same fp16 vectors, which is why nothing needs to be refined afterwards.

Knows no SQLite: `index_shelf.py` keeps an index in step with its store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
import numpy.typing as npt

from server.rag.index_snapshot import Arrays, Ids, SnapshotRefused, SnapshotStamp, read_snapshot, write_snapshot
from server.rag.segments import Mask, Segment, Segments, crowded

MAX_SCANNED_ROWS = 200_000
"""Of 384 numbers: 150 MB, which one core reads in some 7 ms. In a segment with lists, a third of this is looked at."""

_FEW = 1 / 16  # of a segment's rows: so many are copied out and scanned, which gives the same scores
_ROWS_PER_LIST_TRAINED = 48
_TRAINING_ROUNDS = 8
_ROWS_PER_BLOCK = 16_384  # what is widened to fp32 at a time: 25 MB of 384 numbers

Halves = npt.NDArray[np.float16]
Singles = npt.NDArray[np.float32]
Found = tuple[Ids, Singles]


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorArrays:
    """Rows of an index outside of FAISS.

    Attributes:
        ids: int64 [n], ascending.
        vectors: float16 [n, dimensions].
        centroids: float32 [num_lists, dimensions] if the vectors are in lists; else there are 0.
        lists: int32 [n], the list of each vector; empty without lists.
    """

    ids: Ids
    vectors: Halves
    centroids: Singles = field(default_factory=lambda: np.empty((0, 0), np.float32))
    lists: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


def vector_arrays(ids: Ids, vectors: Singles | Halves) -> VectorArrays:
    """Arrays of n distinct ids and vectors [n, dimensions] of L2 norm 1, which are rounded to fp16."""
    ids, halves = np.asarray(ids, np.int64), np.asarray(vectors, np.float16)
    if np.any(ids[1:] < ids[:-1]):
        order = np.argsort(ids)
        ids, halves = ids[order], halves[order]
    return VectorArrays(ids=ids, vectors=halves)


class FaissIndex:
    """`protocols.VectorIndex` over one store's chunks. Any thread may call any method; searches never wait."""

    def __init__(
        self, generation: int, rows: Iterable[VectorArrays] = (), *, max_scanned_rows: int = MAX_SCANNED_ROWS
    ) -> None:
        """Index the chunks that a store has at a generation.

        Args:
            rows: All in one will do; `merge` gives large ones their lists.
            max_scanned_rows: Segments with more rows get lists.
        """
        self._max_scanned_rows = max_scanned_rows
        self._segments: Segments[_Rows] = Segments(
            generation, (self._rows(arrays) for arrays in rows if len(arrays.ids)), choose=self._choose, join=self._join
        )

    @classmethod
    def load(cls, path: Path, expected: SnapshotStamp, *, max_scanned_rows: int = MAX_SCANNED_ROWS) -> Self:
        """Read what `save` wrote. Errors as of `read_snapshot`."""
        arrays = [_checked(each) for each in read_snapshot(path, expected)]
        return cls(expected.generation, arrays, max_scanned_rows=max_scanned_rows)

    @property
    def generation(self) -> int:
        return self._segments.contents.generation

    @property
    def num_chunks(self) -> int:
        return self._segments.contents.num_alive

    @property
    def num_bytes(self) -> int:
        return self._segments.contents.num_bytes

    def search(self, queries: Singles, k: int, *, allowed_ids: Ids | None = None) -> Found:
        _use_one_thread()
        segments = self._segments.contents.segments
        queries = np.ascontiguousarray(queries, np.float32)
        allowed = None if allowed_ids is None else np.unique(allowed_ids)
        return _best([_search(segment, queries, k, allowed) for segment in segments], len(queries), k)

    def apply(self, generation: int, added_ids: Ids, vectors: Singles, removed_ids: Ids) -> None:
        """Take over one change. An id that is added replaces what it was before; unknown ids are not removed.

        Many small changes make many segments: call `merge` from time to time.
        """
        added = self._rows(vector_arrays(added_ids, vectors)) if len(added_ids) else None
        self._segments.apply(generation, added, removed_ids)

    def merge(self) -> bool:
        """Make one segment of those that are due. False if none are: call again until then.

        Takes milliseconds, or seconds where lists are made. Changes and searches go on meanwhile.
        """
        _use_one_thread()
        return self._segments.merge()

    def save(self, path: Path, mark: int = 0) -> SnapshotStamp:
        """Write what is there now, and has this mark, to a file, for `load`. Errors as of `write_snapshot`."""
        contents = self._segments.contents
        stamp = contents.stamp(mark)
        write_snapshot(path, stamp, [_file_arrays(segment) for segment in contents.segments])
        return stamp

    def _rows(self, arrays: VectorArrays) -> _Rows:
        if len(arrays.centroids):
            return _ListedRows(arrays, num_looked_at=self._max_scanned_rows // 3)
        return _ScannedRows(arrays.ids, [arrays.vectors])

    def _choose(self, segments: Sequence[Segment[_Rows]]) -> Sequence[Segment[_Rows]]:
        scanned = [segment for segment in segments if not segment.rows.has_lists]
        listed = [segment for segment in segments if segment.rows.has_lists]
        if sum(segment.num_alive for segment in scanned) > self._max_scanned_rows:
            return scanned
        return crowded(scanned) or crowded(listed)

    def _join(self, segments: Sequence[Segment[_Rows]]) -> _Rows:
        parts = [_alive(segment) for segment in sorted(segments, key=lambda segment: int(segment.rows.ids[0]))]
        ids = np.concatenate([part.ids for part in parts])
        if len(ids) > self._max_scanned_rows:
            joined = vector_arrays(ids, np.concatenate([part.vectors for part in parts]))
            centroids = _train(joined.vectors)
            return self._rows(replace(joined, centroids=centroids, lists=_assign(joined.vectors, centroids)))
        if np.all(ids[1:] > ids[:-1]):  # as a rule: without another copy
            return _ScannedRows(ids, [part.vectors for part in parts])
        return self._rows(vector_arrays(ids, np.concatenate([part.vectors for part in parts])))


def _file_arrays(segment: Segment[_Rows]) -> Arrays:
    rows = _alive(segment)
    return rows.ids, rows.vectors, rows.centroids, rows.lists


def _checked(arrays: Arrays) -> VectorArrays:
    """Refuse arrays of a file that are not of an index."""
    types = [(array.dtype.str, array.ndim) for array in arrays]
    if types != [("<i8", 1), ("<f2", 2), ("<f4", 2), ("<i4", 1)]:
        raise SnapshotRefused("its arrays are not those of vectors")
    ids, vectors, centroids, lists = arrays
    has_lists = len(centroids) > 0
    if (
        len(vectors) != len(ids)
        or len(lists) != (len(ids) if has_lists else 0)
        or (has_lists and centroids.shape[1] != vectors.shape[1])
        or np.any((lists < 0) | (lists >= len(centroids)))
    ):
        raise SnapshotRefused("its arrays contradict one another")
    # Copies of what is kept: a view would keep all the content of the file.
    return VectorArrays(ids=ids.copy(), vectors=vectors, centroids=centroids.copy(), lists=lists.copy())


def _alive(segment: Segment[_Rows]) -> VectorArrays:
    """What counts of a segment; see `_Rows.arrays`."""
    arrays, alive = segment.rows.arrays(), segment.alive
    if alive is None:
        return arrays
    lists = arrays.lists[alive] if len(arrays.lists) else arrays.lists
    return replace(arrays, ids=arrays.ids[alive], vectors=arrays.vectors[alive], lists=lists)


# ---- searching


def _search(segment: Segment[_Rows], queries: Singles, k: int, allowed: Ids | None) -> Found:
    """Shapes [num_queries, up to k]."""
    mask = segment.mask(allowed)
    num_allowed = len(segment.rows.ids) if mask is None else int(np.count_nonzero(mask))
    if num_allowed == 0:
        return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    scores, positions = segment.rows.search(queries, min(k, num_allowed), mask, num_allowed)
    is_missing = positions < 0  # of a query that is no number, say: all the others have their k
    return np.where(is_missing, -1, segment.rows.ids[positions]), np.where(is_missing, np.float32(-np.inf), scores)


def _best(found: Sequence[Found], num_queries: int, k: int) -> Found:
    """Join what segments found, best first, ties by id; padded to k."""
    padding = np.full((num_queries, k), -1, np.int64), np.full((num_queries, k), -np.inf, np.float32)
    ids = np.concatenate([ids for ids, _ in (*found, padding)], axis=1)
    scores = np.concatenate([scores for _, scores in (*found, padding)], axis=1)
    order = np.lexsort((ids, -scores), axis=-1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _use_one_thread() -> None:
    """Keep FAISS from spreading one call over all cores, which others want too: searches run side by side instead.

    The setting is each calling thread's own, and cheap.
    """
    faiss.omp_set_num_threads(1)


# ---- making lists


def _train(vectors: Halves) -> Singles:
    """Find the centres of lists: twice as many as the lists would be long, were they all alike."""
    num_lists = round(2 * math.sqrt(len(vectors)))
    random = np.random.default_rng(0)
    sample = random.choice(len(vectors), min(len(vectors), _ROWS_PER_LIST_TRAINED * num_lists), replace=False)
    clustering = faiss.Kmeans(
        vectors.shape[1],
        num_lists,
        niter=_TRAINING_ROUNDS,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=_ROWS_PER_LIST_TRAINED,
    )
    clustering.train(vectors[np.sort(sample)].astype(np.float32))
    return np.asarray(clustering.centroids, np.float32)


def _assign(vectors: Halves, centroids: Singles) -> npt.NDArray[np.int32]:
    quantizer = faiss.IndexFlatIP(centroids.shape[1])
    quantizer.add(centroids)
    lists = np.empty(len(vectors), np.int32)
    for block in _blocks(len(vectors)):
        _, nearest = quantizer.search(vectors[block].astype(np.float32), 1)
        lists[block] = nearest[:, 0]
    return lists


def _blocks(num_rows: int) -> list[slice]:
    return [slice(start, start + _ROWS_PER_BLOCK) for start in range(0, num_rows, _ROWS_PER_BLOCK)]


# ---- rows: what FAISS holds


class _Rows(Protocol):
    """`segments.Rows` that can be searched."""

    @property
    def ids(self) -> Ids: ...

    @property
    def num_bytes(self) -> int: ...

    @property
    def has_lists(self) -> bool: ...

    def search(self, queries: Singles, k: int, mask: Mask | None, num_allowed: int) -> tuple[Singles, Ids]:
        """Return scores and positions [num_queries, k], best first, -1 where not enough was found.

        Args:
            mask: Which positions are allowed, `num_allowed` of them, at least `k`; None: all are.
        """

    def arrays(self) -> VectorArrays:
        """Their content. It may be a view: keep the rows as long as it."""


def _selector(mask: Mask | None) -> Any:
    return None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


class _ScannedRows:
    """Rows that each search looks at one by one."""

    has_lists = False

    def __init__(self, ids: Ids, parts: Sequence[Halves]) -> None:
        """Copy vectors, [n, dimensions] in all, in the order of ids."""
        self.ids = ids
        self._index = faiss.IndexScalarQuantizer(
            parts[0].shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.codes.resize(len(ids) * self._index.code_size)
        np.concatenate(parts, out=self._codes())  # FAISS's fp16 is numpy's
        self._index.ntotal = len(ids)

    @property
    def num_bytes(self) -> int:
        return self.ids.nbytes + len(self.ids) * int(self._index.code_size)

    def search(self, queries: Singles, k: int, mask: Mask | None, num_allowed: int) -> tuple[Singles, Ids]:
        if mask is not None and num_allowed <= _FEW * len(mask):
            places = np.flatnonzero(mask)
            few = _ScannedRows(self.ids[places], [self._codes()[places]])
            scores, positions = few.search(queries, k, None, num_allowed)
            return scores, places[positions]
        selector = _selector(mask)  # FAISS does not own it
        scores, positions = self._index.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return scores, positions

    def arrays(self) -> VectorArrays:
        return VectorArrays(ids=self.ids, vectors=self._codes())

    def _codes(self) -> Halves:
        codes = faiss.rev_swig_ptr(self._index.codes.data(), self._index.codes.size())
        return np.asarray(codes).view(np.float16).reshape(len(self.ids), -1)


class _ListedRows:
    """Rows in lists of neighbours, of which a search looks at as many as it needs."""

    has_lists = True

    def __init__(self, arrays: VectorArrays, *, num_looked_at: int) -> None:
        self.ids = arrays.ids
        self._centroids = arrays.centroids
        self._lists = arrays.lists
        self._num_looked_at = num_looked_at
        self._quantizer = faiss.IndexFlatIP(arrays.centroids.shape[1])
        self._quantizer.add(arrays.centroids)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer,
            arrays.centroids.shape[1],
            len(arrays.centroids),
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # the vectors themselves, not what they differ from their centroid by
        )
        self._index.is_trained = True
        for block in _blocks(len(self.ids)):
            self._add(block, arrays.vectors[block].astype(np.float32))

    def _add(self, block: slice, vectors: Singles) -> None:
        positions = np.arange(block.start, block.start + len(vectors))
        lists = self._lists[block].astype(np.int64)
        self._index.add_core(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(positions), faiss.swig_ptr(lists))

    @property
    def num_bytes(self) -> int:
        num_bytes = sum(part.nbytes for part in (self.ids, self._lists, self._centroids))
        return num_bytes + len(self.ids) * (8 + int(self._index.code_size))

    def search(self, queries: Singles, k: int, mask: Mask | None, num_allowed: int) -> tuple[Singles, Ids]:
        num_lists = len(self._centroids)
        # Where few are allowed, these are all lists, and the answer is exact.
        num_probed = min(num_lists, math.ceil(num_lists * max(self._num_looked_at, 2 * k) / num_allowed))
        selector = _selector(mask)  # FAISS does not own it
        scores, positions = self._probe(queries, k, selector, num_probed)
        is_short = np.any(positions < 0, axis=1)  # what is allowed lies in lists that are far from the query
        if num_probed < num_lists and is_short.any():
            scores[is_short], positions[is_short] = self._probe(queries[is_short], k, selector, num_lists)
        return scores, positions

    def _probe(self, queries: Singles, k: int, selector: Any, num_lists: int) -> tuple[Singles, Ids]:
        """Look at the lists that are nearest to each query, so many of them."""
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=num_lists)
        scores, positions = self._index.search(queries, k, params=parameters)
        return scores, positions

    def arrays(self) -> VectorArrays:
        vectors = np.empty((len(self.ids), self._index.d), np.float16)
        for number in range(len(self._centroids)):
            size = self._index.invlists.list_size(number)
            if size:
                positions = faiss.rev_swig_ptr(self._index.invlists.get_ids(number), size)
                codes = faiss.rev_swig_ptr(self._index.invlists.get_codes(number), size * self._index.code_size)
                vectors[positions] = codes.view(np.float16).reshape(size, -1)
        return VectorArrays(ids=self.ids, vectors=vectors, centroids=self._centroids, lists=self._lists)
