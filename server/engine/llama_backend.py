"""The engine's `Backend` on llama.cpp."""

from __future__ import annotations

from server.bindings.llama_context import DECODED, NO_KV_SLOT, LlamaContext
from server.engine.backend import BatchFailed, Logits, OutOfCells
from server.engine.batch import Batch


class LlamaBackend:
    """One llama.cpp context with a unified KV cache: any sequence may use any cell."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self.num_cells = context.num_cells
        self.max_sequences = context.options.max_sequences
        self.max_batch_tokens = context.options.max_batch_tokens
        self.vocab_size = context.vocab_size

    def decode(self, batch: Batch) -> Logits:
        status = self._context.decode(batch.token_ids, batch.positions, batch.seq_ids, batch.wants_logits)
        if status == NO_KV_SLOT:
            raise OutOfCells
        if status != DECODED:
            raise BatchFailed(f"llama_decode returned {status} for {batch.num_tokens} tokens")
        return self._context.logits(batch.num_outputs)

    def free(self, seq_id: int) -> None:
        self._context.remove(seq_id)
