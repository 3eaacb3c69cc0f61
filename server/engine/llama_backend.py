"""The engine's `Backend` on llama.cpp."""

from __future__ import annotations

from server.bindings.llama_context import DECODED, NO_KV_SLOT, LlamaContext
from server.engine.backend import BatchFailed, Logits, OutOfCells
from server.engine.batch import Batch


class LlamaBackend:
    """One llama.cpp context."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self.has_streams = context.options.streams
        self.num_cells = context.num_cells // (context.options.max_sequences if self.has_streams else 1)
        self.max_sequences = context.options.max_sequences
        self.can_share = context.can_share_prefixes
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

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self._context.share(source, target, length=num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        is_cut = self._context.remove(seq_id, start=num_tokens)
        assert is_cut, "this model's memory cannot be cut: `can_share` should say so"
