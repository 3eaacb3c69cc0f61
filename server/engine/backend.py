"""What the engine asks of whatever computes a batch: llama.cpp in production, a fake in tests."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.engine.batch import Batch

Logits = npt.NDArray[np.float32]

CellStates = Sized
"""What the cells of a sequence hold, as the backend writes it; its length is in bytes."""


class OutOfCells(Exception):
    """The batch does not fit into the KV cache. Nothing was computed; free cells and try again."""


class BatchFailed(Exception):
    """The batch could not be computed; the cells of its sequences are in an unknown state and must be freed."""


class Backend(Protocol):
    """Computes batches over a KV cache for the sequences 0 .. max_sequences - 1.

    Called by one thread. A token at position p of a sequence attends to that sequence's cells at positions < p.

    Attributes:
        num_cells: Cells that all sequences share; or, if `has_streams`, that each of them has for itself.
        has_streams: Whether each sequence has cells of its own, attends to nothing else, and `copy` takes cells.
        can_share: Whether `copy` and `trim` work for part of a sequence; recurrent models keep one state per sequence.
        can_save: Whether what `restore` brought back can be shared and trimmed, too.
    """

    num_cells: int
    max_sequences: int
    has_streams: bool
    can_share: bool
    can_save: bool
    max_batch_tokens: int
    vocab_size: int

    def decode(self, batch: Batch) -> Logits:
        """Compute a batch.

        Returns:
            float32 [batch.num_outputs, vocab_size], in batch order of the tokens that want logits. Valid and writable
            until the next call.

        Raises:
            OutOfCells: No room; the state is as before.
            BatchFailed: The sequences of this batch are lost; all others are intact.
        """

    def free(self, seq_id: int) -> None:
        """Drop all cells of a sequence. Freeing an empty sequence is allowed."""

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let the empty sequence `target` have the first `num_tokens` of `source` too."""

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Drop the cells of a sequence behind its first `num_tokens`."""

    def save(self, seq_id: int) -> CellStates:
        """Copy out what the cells of a sequence hold.

        Raises:
            MemoryError: There is no room for it.
        """

    def restore(self, seq_id: int, states: CellStates) -> bool:
        """Give an empty sequence cells that hold what `save` returned; False where there is no room for them."""
