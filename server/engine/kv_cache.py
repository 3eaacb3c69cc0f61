"""KV cells and sequence ids: who owns how many. Keeps the backend in step with its ledger."""

from __future__ import annotations

import heapq

from server.engine.backend import Backend


class KVCache:
    """Hands out sequence ids and counts the cells that each owns.

    Ids are handed out smallest first, so that the active ones stay compact.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._cells_of: dict[int, int] = {}
        self._free_ids = list(range(backend.max_sequences))
        self.num_free_cells = backend.num_cells

    @property
    def has_free_id(self) -> bool:
        return bool(self._free_ids)

    def take_id(self) -> int:
        """Hand out a free sequence id; it owns no cells yet."""
        seq_id = heapq.heappop(self._free_ids)
        self._cells_of[seq_id] = 0
        return seq_id

    def grow(self, seq_id: int, num_cells: int) -> None:
        """Account for cells that a decode has given to the sequence."""
        assert num_cells <= self.num_free_cells
        self._cells_of[seq_id] += num_cells
        self.num_free_cells -= num_cells

    def release_id(self, seq_id: int) -> None:
        """Take the id and all its cells back, in the backend too."""
        self._backend.free(seq_id)
        self.num_free_cells += self._cells_of.pop(seq_id)
        heapq.heappush(self._free_ids, seq_id)

    def check_integrity(self) -> None:
        """Assert that nothing is owned: call when no sequence runs."""
        assert not self._cells_of, f"cells leaked: {self._cells_of}"
        assert self.num_free_cells == self._backend.num_cells
        assert sorted(self._free_ids) == list(range(self._backend.max_sequences)), f"ids leaked: {self._free_ids}"
