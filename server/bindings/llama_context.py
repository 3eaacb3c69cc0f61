"""A context on a model: its KV cache, and decoding of token batches into logits."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Self

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.bindings import llama_log
from server.bindings.context_options import CELLS_STEP, ContextOptions, has_twins, max_sequences
from server.bindings.gpu_failure import explain_gpu_failure
from server.bindings.llama_batch import LlamaBatch
from server.bindings.llama_model import LlamaModel
from server.config.schema import KvType
from server.errors import LoadFailed

DECODED = 0
NO_KV_SLOT = 1  # state is as before the call: free cells and try again
"""Results of `decode` besides negative ones, which mean that the batch failed."""

SequenceState = ctypes.Array[ctypes.c_uint8]
"""The cells of one sequence with what they hold, as llama.cpp writes them."""

_GGML_TYPES: dict[KvType, int] = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}


class LlamaContext:
    """Owns a `llama_context` and the arrays of one reusable batch. One thread at a time.

    Raises:
        LoadFailed: The KV cache or compute buffers do not fit into memory, the model has no such KV type, or there are
            too many sequences.
    """

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        limit = max_sequences(has_window=model.has_window, streams=options.streams)
        if options.max_sequences > limit:
            raise LoadFailed(
                f"{options.max_sequences} sequences but llama.cpp has ids for {limit} of this model; lower their number"
            )
        is_doubled = has_twins(has_window=model.has_window, streams=options.streams)
        self._id_offsets = np.array([0, options.max_sequences] if is_doubled else [0], np.int32)
        params = context_params(options, num_ids=options.max_sequences * len(self._id_offsets))
        llama_log.recent_errors.clear()
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            cells = f"{options.num_cells} KV cells"
            if reason := explain_gpu_failure(list(llama_log.recent_errors)):
                raise LoadFailed(f"cannot make a context of {cells}: {reason}")
            if options.kv_type == "f16":
                raise LoadFailed(f"cannot make a context of {cells}: out of memory; lower `context` or `kv_cells`")
            raise LoadFailed(
                f"cannot make a context of {cells} of type {options.kv_type}: out of memory, or not for this model;"
                " lower `context` or `kv_cells`, or set kv_type: f16"
            )
        self.options = options
        self.vocab_size = model.vocab.size
        self.num_cells = llama_cpp.llama_n_ctx(self.handle)  # llama.cpp rounds up
        self.can_share_prefixes = model.can_share_prefixes
        self.has_window = model.has_window
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = LlamaBatch(options.max_batch_tokens, num_ids=len(self._id_offsets))

    def decode(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        seq_ids: npt.NDArray[np.int32],
        wants_logits: npt.NDArray[np.bool_],
    ) -> int:
        """Compute a batch; all arrays have shape [num_tokens].

        Within a sequence, positions must continue where its cells end. Returns `DECODED`, `NO_KV_SLOT`, or another
        status of `llama_decode` when the batch failed and its sequences are in an unknown state.
        """
        count = len(token_ids)
        # llama.cpp answers these with an abort of the process or an opaque -1; here they are bugs of the caller.
        assert 0 < count <= self.options.max_batch_tokens
        assert token_ids.min() >= 0
        assert token_ids.max() < self.vocab_size
        assert seq_ids.min() >= 0
        assert seq_ids.max() < self.options.max_sequences
        self._batch.fill(token_ids, positions, seq_ids[:, None] + self._id_offsets, wants_logits)
        return int(llama_cpp.llama_decode(self.handle, self._batch.handle))

    def logits(self, num_outputs: int) -> npt.NDArray[np.float32]:
        """Logits of the last decode, float32 [num_outputs, vocab_size], in batch order of the tokens that wanted them.

        A view of llama.cpp's buffer: valid until the next `decode`, and writable.
        """
        if num_outputs == 0:
            return np.empty((0, self.vocab_size), np.float32)
        pointer = llama_cpp.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, (num_outputs, self.vocab_size))

    def remove(self, seq_id: int, *, start: int = 0) -> bool:
        """Drop a sequence's cells from position `start` on. False where the model's memory cannot be cut there."""
        return all(llama_cpp.llama_memory_seq_rm(self._memory, each, start, -1) for each in self._llama_ids(seq_id))

    def share(self, source: int, target: int, *, length: int) -> None:
        """Let the empty sequence `target` have what `source` has at positions below `length`.

        Unified: the same cells, and no work. Streams: llama.cpp copies whole buffers only, then the rest is cut off.
        """
        assert self.can_share_prefixes
        if self.options.streams:
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.remove(target, start=length)
        else:
            for each in self._llama_ids(target):
                llama_cpp.llama_memory_seq_cp(self._memory, source, each, 0, length)

    def save(self, seq_id: int) -> SequenceState:
        """Copy out what the cells of a sequence hold; with windows, what the next token sees: no `share` or `remove` of
        a part of it can follow its `restore`."""
        size_bytes = llama_cpp.llama_state_seq_get_size(self.handle, seq_id)
        state: SequenceState = (ctypes.c_uint8 * size_bytes)()
        if llama_cpp.llama_state_seq_get_data(self.handle, state, len(state), seq_id) != size_bytes:
            raise MemoryError(f"llama.cpp could not copy {size_bytes} bytes of a sequence")
        return state

    def restore(self, seq_id: int, state: SequenceState) -> bool:
        """Give a sequence cells of its own that hold `state`, which a context of the same options has saved.

        Costs a copy of memory and no computing. False where there is no room for it.
        """
        self.remove(seq_id)
        is_done = bool(llama_cpp.llama_state_seq_set_data(self.handle, state, len(state), seq_id))
        for twin in self._llama_ids(seq_id)[1:]:
            llama_cpp.llama_memory_seq_cp(self._memory, seq_id, twin, -1, -1)
        return is_done

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _llama_ids(self, seq_id: int) -> list[int]:
        """What llama.cpp calls a sequence: its id and, where it has one, its twin's."""
        return [seq_id + int(offset) for offset in self._id_offsets]


def context_params(options: ContextOptions, *, num_ids: int) -> llama_cpp.llama_context_params:
    """What llama.cpp is to make. `num_ids`: of sequences, twins included."""
    params = llama_cpp.llama_context_default_params()
    # llama.cpp rounds n_ctx up itself, but only after it has bounded n_batch by it, and aborts if n_batch is below
    # n_seq_max then.
    params.n_ctx = -(-options.num_cells // CELLS_STEP) * CELLS_STEP
    params.n_seq_max = num_ids
    params.n_batch = max(options.max_batch_tokens, params.n_seq_max)
    params.n_ubatch = min(options.max_ubatch_tokens, options.max_batch_tokens)
    params.n_threads = params.n_threads_batch = options.num_threads
    params.flash_attn_type = int(options.flash_attention)
    params.type_k = params.type_v = _GGML_TYPES[options.kv_type]
    params.kv_unified = not options.streams
    params.swa_full = True  # keep what lies behind a window: a shared or trimmed sequence needs it again
    params.no_perf = True
    return params
