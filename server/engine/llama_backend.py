"""The engine's `Backend` on llama.cpp."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from server import faults
from server.bindings.llama_context import DECODED, NO_KV_SLOT, LlamaContext, SequenceState
from server.engine.backend import BatchFailed, CellStates, Logits, OutOfCells
from server.engine.batch import Batch


class LlamaBackend:
    """One llama.cpp context."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self.has_streams = context.options.streams
        self.num_cells = context.num_cells // (context.options.max_sequences if self.has_streams else 1)
        self.max_sequences = context.options.max_sequences
        self.can_share = context.can_share_prefixes
        self.can_save = context.can_share_prefixes and not context.has_window
        self.max_batch_tokens = context.options.max_batch_tokens
        self.vocab_size = context.vocab_size

    def decode(self, batch: Batch) -> Logits:
        if self.has_streams and 0 < batch.num_decode_tokens < batch.num_tokens:
            return self._decode_apart(batch)
        self._compute(batch, slice(None))
        return self._context.logits(batch.num_outputs)

    def _decode_apart(self, batch: Batch) -> Logits:
        """Compute the decodes first, and then the prompts, as two batches.

        Of streams, all that are in one llama.cpp batch attend as far as the longest does: chats of a few hundred tokens
        would pay for thousands of cells as long as somebody else's long prompt is computed.
        """
        logits = np.empty((batch.num_outputs, self.vocab_size), np.float32)
        is_decode = batch.is_decode
        is_row_of_decode = is_decode[batch.wants_logits]
        self._compute(batch, is_decode)
        logits[is_row_of_decode] = self._context.logits(batch.num_decode_tokens)
        try:
            self._compute(batch, ~is_decode)
        except OutOfCells:
            self._undo(batch, is_decode)
            raise
        logits[~is_row_of_decode] = self._context.logits(batch.num_outputs - batch.num_decode_tokens)
        return logits

    def _compute(self, batch: Batch, part: slice | npt.NDArray[np.bool_]) -> None:
        faults.reach("worker.decode")
        status = self._context.decode(
            batch.token_ids[part], batch.positions[part], batch.seq_ids[part], batch.wants_logits[part]
        )
        if status == NO_KV_SLOT:
            raise OutOfCells
        if status != DECODED:
            raise BatchFailed(f"llama_decode returned {status} for a batch of {batch.num_tokens} tokens")

    def _undo(self, batch: Batch, part: npt.NDArray[np.bool_]) -> None:
        """Make the cells of what has been computed as they were before."""
        seq_ids, firsts = np.unique(batch.seq_ids[part], return_index=True)
        starts = batch.positions[part][firsts]
        if not all(self._context.remove(int(seq), start=int(at)) for seq, at in zip(seq_ids, starts, strict=True)):
            raise BatchFailed("there was no room for the prompts of a batch, and its decodes cannot be undone")

    def free(self, seq_id: int) -> None:
        self._context.remove(seq_id)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self._context.share(source, target, length=num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        is_cut = self._context.remove(seq_id, start=num_tokens)
        assert is_cut, "this model's memory cannot be cut: `can_share` should say so"

    def save(self, seq_id: int) -> SequenceState:
        return self._context.save(seq_id)

    def restore(self, seq_id: int, states: CellStates) -> bool:
        assert isinstance(states, ctypes.Array)
        return self._context.restore(seq_id, states)
