"""Rows that were computed before, by the digest of what the model read for them.

The digest covers token ids and segments, so everything that leads to them: text, prompt, truncation. One cache belongs
to one model in one process. Optionally what falls out of memory, or was there before a restart, is found in a file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from server.encoders.encoder import Rows
from server.encoders.vector_file import VectorFile

BYTES_PER_ENTRY = 256
"""What an entry costs besides its numbers: key, array object and place in the table (measured with CPython 3.11)."""


class VectorCache:
    """Least recently used rows go first. Not thread-safe but for `find_stored`: the batcher's lock guards it."""

    def __init__(self, max_bytes: int, file: VectorFile | None = None) -> None:
        """Hold at most `max_bytes` in memory; 0: nothing. `file` is closed with the cache."""
        self._max_bytes = max_bytes
        self._file = file
        self._rows: OrderedDict[bytes, Rows] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def find_stored(self, keys: Iterable[bytes]) -> dict[bytes, Rows]:
        """Read what the file has. From any thread and without the lock, since it waits for the disk."""
        return self._file.read(keys) if self._file else {}

    def get(self, key: bytes) -> Rows | None:
        """Return a row, which must not be changed."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: bytes, row: Rows) -> None:
        """Keep a copy of a row that was computed."""
        self.keep(key, row)
        if self._file:
            self._file.write(key, row)

    def keep(self, key: bytes, row: Rows) -> None:
        """Keep a copy of a row in memory."""
        size = row.nbytes + BYTES_PER_ENTRY
        if key in self._rows or size > self._max_bytes:
            return
        self._rows[key] = np.array(row)  # a view would keep its whole batch
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            _, oldest = self._rows.popitem(last=False)
            self._num_bytes -= oldest.nbytes + BYTES_PER_ENTRY

    def close(self) -> None:
        if self._file:
            self._file.close()
