"""What an index consists of: rows that never change, and masks that say which of them still count.

A search takes the tuple of segments that it finds and works on that, whatever happens meanwhile; a change makes a new
tuple and puts it in the old one's place. New rows are a new segment, removed ones are masked out of theirs; `merge`
makes few large segments of many small ones.

Knows nothing of what rows are, but that each has the id of a chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from server.rag.index_snapshot import Ids, SnapshotStamp, checksum_of

Mask = npt.NDArray[np.bool_]

_MIN_ALIVE = 0.75
"""A segment with a smaller share of its rows left is made again."""


class Rows(Protocol):
    """Rows of chunks, named by position; they never change."""

    @property
    def ids(self) -> Ids:
        """int64 [num_rows], ascending, distinct; at least one."""

    @property
    def num_bytes(self) -> int:
        """Memory of all that."""


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True, eq=False)
class Segment(Generic[R]):
    """Rows, of which those that are masked out were removed.

    Attributes:
        alive: bool [num_rows]; None: all.
    """

    rows: R
    alive: Mask | None = None

    @cached_property
    def num_alive(self) -> int:
        return len(self.rows.ids) if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def alive_ids(self) -> Ids:
        return self.rows.ids if self.alive is None else self.rows.ids[self.alive]

    def mask(self, wanted: Ids | None) -> Mask | None:
        """Which rows are alive and have one of the wanted ids; these are in ascending order. None: all rows."""
        if wanted is None:
            return self.alive
        ids = self.rows.ids
        near = wanted[slice(*np.searchsorted(wanted, (ids[0], ids[-1] + 1)))]
        positions = np.searchsorted(ids, near)
        mask = np.zeros(len(ids), np.bool_)
        mask[positions[ids[positions] == near]] = True
        return mask if self.alive is None else mask & self.alive

    def without(self, gone: Ids) -> Segment[R]:
        """Mask rows out; `gone` is in ascending order and may name ids of other segments."""
        removed = self.mask(gone)
        if removed is None or not removed.any():
            return self
        return Segment(self.rows, ~removed if self.alive is None else self.alive & ~removed)


Choose = Callable[[Sequence[Segment[R]]], Sequence[Segment[R]]]
"""Says which segments to make one of, if any."""
Join = Callable[[Sequence[Segment[R]]], R]
"""Makes one of what is alive in segments, at least one row."""


@dataclass(frozen=True)
class Contents(Generic[R]):
    """All of an index at a generation of its store. An id is alive in one segment at most."""

    generation: int
    segments: tuple[Segment[R], ...]

    @property
    def num_alive(self) -> int:
        return sum(segment.num_alive for segment in self.segments)

    @property
    def num_bytes(self) -> int:
        """Memory of all rows, of removed ones too until they are merged away."""
        return sum(segment.rows.num_bytes for segment in self.segments)

    def stamp(self, mark: int) -> SnapshotStamp:
        ids = np.sort(_alive_ids(self.segments))
        return SnapshotStamp(generation=self.generation, count=len(ids), checksum=checksum_of(ids), mark=mark)


class Segments(Generic[R]):
    """Contents that change. Any thread may call any method; whoever reads `contents` never waits."""

    def __init__(self, generation: int, rows: Iterable[R], *, choose: Choose[R], join: Join[R]) -> None:
        self._contents = Contents(generation, tuple(Segment(each) for each in rows))
        self._choose = choose
        self._join = join
        self._writing = threading.Lock()  # while contents are put in the place of others
        self._merging = threading.Lock()  # one merge at a time, while changes go on

    @property
    def contents(self) -> Contents[R]:
        return self._contents

    def apply(self, generation: int, added: R | None, removed_ids: Ids) -> None:
        """Take over one change; changes come in order. An id that is added replaces what it was before."""
        gone = np.unique(removed_ids) if added is None else np.union1d(removed_ids, added.ids)
        new = [] if added is None else [Segment(added)]
        with self._writing:
            contents = self._contents
            assert generation > contents.generation, "changes come in order"
            self._contents = Contents(generation, (*_without(contents.segments, gone), *new))

    def merge(self) -> bool:
        """Make one segment of those that are due. False if none are: call again until then.

        Takes as long as it takes to make the new rows. Changes go on meanwhile.
        """
        with self._merging:
            due = self._choose(self._contents.segments)
            if not due:
                return False
            merged = Segment(self._join(due))
            with self._writing:
                contents = self._contents
                merged_rows = {id(segment.rows) for segment in due}
                replaced = [segment for segment in contents.segments if id(segment.rows) in merged_rows]
                remaining = [segment for segment in contents.segments if id(segment.rows) not in merged_rows]
                gone_since = np.setdiff1d(_alive_ids(due), _alive_ids(replaced), assume_unique=True)
                self._contents = Contents(contents.generation, (*_without([merged], gone_since), *remaining))
            return True


def crowded(segments: Sequence[Segment[R]]) -> Sequence[Segment[R]]:
    """Choose the smallest segments, up to the last that is no larger than all smaller ones together; or a sparse one.

    When nothing is chosen any more, each segment is larger than all smaller ones together: there are few, and a row is
    copied only when the segment that it is in doubles.
    """
    by_size = sorted(segments, key=lambda segment: segment.num_alive)
    num_smaller = num_chosen = 0
    for position, segment in enumerate(by_size):
        if segment.num_alive <= num_smaller:
            num_chosen = position + 1
        num_smaller += segment.num_alive
    sparse = [segment for segment in by_size if segment.num_alive < _MIN_ALIVE * len(segment.rows.ids)]
    return by_size[:num_chosen] or sparse[:1]


def _without(segments: Sequence[Segment[R]], gone: Ids) -> list[Segment[R]]:
    kept = (segment.without(gone) for segment in segments)
    return [segment for segment in kept if segment.num_alive]


def _alive_ids(segments: Sequence[Segment[R]]) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(segment.alive_ids for segment in segments)])
