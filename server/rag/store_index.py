"""What is searched of one vector store: its vectors and its words, two indexes that take over the same changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from server.rag.documents import ChunkChange
from server.rag.index_snapshot import SnapshotRefused, SnapshotStamp
from server.rag.lexical_index import LexicalIndex
from server.rag.postings import postings_of
from server.rag.vector_index import FaissIndex

logger = logging.getLogger(__name__)

Index = TypeVar("Index")

_NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorSwap:
    """All vectors of a store have become others at once, and nothing else: what one transaction did to it.

    Attributes:
        vectors: Of that generation; None: nobody has made them an index.
    """

    store_id: str
    generation: int
    vectors: FaissIndex | None


@dataclass(eq=False)
class StoreIndex:
    """Both indexes of a store. Any thread may call any method.

    Attributes:
        last_removal: Generation of the newest change by which chunks went, which searches may see already, in one index
            or in both; 0 if there was none since it was made.
    """

    vectors: FaissIndex
    words: LexicalIndex
    last_removal: int = 0

    @property
    def generation(self) -> int:
        """The store's generation that searches see, in both."""
        return min(self.vectors.generation, self.words.generation)

    @property
    def num_bytes(self) -> int:
        return self.vectors.num_bytes + self.words.num_bytes

    def apply(self, change: ChunkChange) -> None:
        """Take over one change."""
        if len(change.removed_ids):
            self.last_removal = change.generation
        if self.vectors.generation < change.generation:
            self.vectors.apply(change.generation, change.added_ids, change.vectors, change.removed_ids)
        if self.words.generation < change.generation:
            self.words.apply(change.generation, postings_of(change.added_ids, change.terms), change.removed_ids)

    def swap(self, change: VectorSwap) -> StoreIndex:
        """Return an index with other vectors, if the change has them, and the same words. This one is over."""
        assert change.vectors is not None
        if self.words.generation < change.generation:
            self.words.apply(change.generation, postings_of(_NO_IDS, ()), _NO_IDS)
        is_behind = self.vectors.generation < change.generation  # else they were read after the change
        return StoreIndex(change.vectors if is_behind else self.vectors, self.words, self.last_removal)

    def merge(self) -> bool:
        """Tidy up once; false if there was nothing to do in either."""
        return any([self.vectors.merge(), self.words.merge()])

    def save(self, folder: Path, store_id: str, mark: int) -> int:
        """Write both to files; return the newest generation that is in these. Errors as of `write_snapshot`."""
        vectors = self.vectors.save(vectors_file(folder, store_id), mark)
        words = self.words.save(words_file(folder, store_id), mark)
        return max(vectors.generation, words.generation)


def vectors_file(folder: Path, store_id: str) -> Path:
    return folder / f"{store_id}.vectors"


def words_file(folder: Path, store_id: str) -> Path:
    return folder / f"{store_id}.words"


def load_index(load: Callable[[Path, SnapshotStamp], Index], path: Path, expected: SnapshotStamp) -> Index | None:
    """Read an index; None, and a line in the log, if the file is not exactly of the expected content."""
    try:
        return load(path, expected)
    except FileNotFoundError:
        return None
    except (SnapshotRefused, OSError) as exc:
        logger.info("index file not used", extra={"file": path.name, "reason": str(exc)})
        return None
