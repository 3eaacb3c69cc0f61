"""What is searched of one vector store: its vectors and its words, two indexes that take over the same changes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server.rag.documents import ChunkChange
from server.rag.index_snapshot import Ids, SnapshotRefused, SnapshotStamp
from server.rag.lexical_index import LexicalIndex
from server.rag.postings import postings_of
from server.rag.rows import chunks
from server.rag.rows.words import WordRow
from server.rag.vector_index import FaissIndex

logger = logging.getLogger(__name__)

Index = TypeVar("Index")


@dataclass(frozen=True, eq=False)
class StoreIndex:
    """Both indexes of a store. Any thread may call any method."""

    vectors: FaissIndex
    words: LexicalIndex

    @property
    def generation(self) -> int:
        """The store's generation that searches see, in both."""
        return min(self.vectors.generation, self.words.generation)

    @property
    def num_bytes(self) -> int:
        return self.vectors.num_bytes + self.words.num_bytes

    def apply(self, change: ChunkChange, words: Sequence[WordRow]) -> None:
        """Take over one change; `words` are of the chunks that it adds, of those that are still there."""
        if self.vectors.generation < change.generation:
            self.vectors.apply(change.generation, change.added_ids, change.vectors, change.removed_ids)
        if self.words.generation < change.generation:
            self.words.apply(change.generation, postings_of(words), change.removed_ids)

    def merge(self) -> bool:
        """Tidy up once; false if there was nothing to do in either."""
        return any([self.vectors.merge(), self.words.merge()])

    def save(self, folder: Path, store_id: str) -> None:
        """Write both to files. OSError leaves those that were there."""
        self.vectors.save(vectors_file(folder, store_id))
        self.words.save(words_file(folder, store_id))


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


def word_rows(db: sqlite3.Connection, added_ids: Ids) -> list[WordRow]:
    """Read what `StoreIndex.apply` wants of the chunks that a change adds."""
    return [(chunk.id, chunk.text, chunk.span.heading) for chunk in chunks.select(db, added_ids)]
