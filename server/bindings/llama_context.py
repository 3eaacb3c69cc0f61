"""A context on a model: its KV cache, and decoding of token batches into logits."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.bindings.llama_batch import LlamaBatch
from server.bindings.llama_model import LlamaModel
from server.config.schema import KvType
from server.errors import LoadFailed

DECODED = 0
NO_KV_SLOT = 1  # state is as before the call: free cells and try again
"""Results of `decode` besides negative ones, which mean that the batch failed."""

_MAX_LLAMA_IDS = 256
"""llama.cpp's own limit."""

_CELLS_STEP = 256  # llama.cpp's own

SequenceState = ctypes.Array[ctypes.c_uint8]
"""The cells of one sequence with what they hold, as llama.cpp writes them."""

_GGML_TYPES: dict[KvType, int] = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """Sizes of a context.

    Attributes:
        num_cells: Tokens that the KV cache holds, for all sequences together.
        streams: Give each sequence an equal part of the cells for itself: unrelated sequences do not slow each other's
            attention down, and sharing a prefix means copying it. Otherwise (unified) any sequence may use any cell.
        max_sequences: Sequence ids are 0 .. max_sequences - 1; the function of this name says how many may be.
        max_batch_tokens: Most tokens in one `decode`.
        max_ubatch_tokens: Tokens that the graph computes at a time.
        num_threads: Compute threads.
        flash_attention: Fused attention kernels: fast on a GPU, anything from twice to a quarter as fast on a CPU.
        kv_type: What a cell holds its numbers in. llama.cpp takes others than f16 only with flash attention.
    """

    num_cells: int
    max_sequences: int
    max_batch_tokens: int = 2048
    max_ubatch_tokens: int = 512
    num_threads: int
    streams: bool = False
    flash_attention: bool = False
    kv_type: KvType = "f16"


def max_sequences(model: LlamaModel, *, streams: bool) -> int:
    """Say how many sequences a context can have: fewer where each needs a twin."""
    return _MAX_LLAMA_IDS // (2 if _has_twins(model, streams=streams) else 1)


class LlamaContext:
    """Owns a `llama_context` and the arrays of one reusable batch. One thread at a time.

    Raises:
        LoadFailed: The KV cache or compute buffers do not fit into memory, the model has no such KV type, or there are
            too many sequences.
    """

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        limit = max_sequences(model, streams=options.streams)
        if options.max_sequences > limit:
            raise LoadFailed(
                f"{options.max_sequences} sequences but llama.cpp has ids for {limit} of this model; lower their number"
            )
        has_twins = _has_twins(model, streams=options.streams)
        self._id_offsets = np.array([0, options.max_sequences] if has_twins else [0], np.int32)
        params = llama_cpp.llama_context_default_params()
        # llama.cpp rounds n_ctx up itself, but only after it has bounded n_batch by it, and aborts if n_batch is below
        # n_seq_max then.
        params.n_ctx = -(-options.num_cells // _CELLS_STEP) * _CELLS_STEP
        params.n_seq_max = options.max_sequences * len(self._id_offsets)
        params.n_batch = max(options.max_batch_tokens, params.n_seq_max)
        params.n_ubatch = min(options.max_ubatch_tokens, options.max_batch_tokens)
        params.n_threads = params.n_threads_batch = options.num_threads
        params.flash_attn_type = int(options.flash_attention)
        params.type_k = params.type_v = _GGML_TYPES[options.kv_type]
        params.kv_unified = not options.streams
        params.swa_full = True  # keep what lies behind a window: a shared or trimmed sequence needs it again
        params.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            cells = f"{options.num_cells} KV cells"
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


def _has_twins(model: LlamaModel, *, streams: bool) -> bool:
    """Whether each sequence has a second id that holds the same cells.

    In a unified cache, llama.cpp gives cells that lie behind the window of their only holder to whoever comes by, and
    planning a batch of several micro-batches it drops some that are still seen. It never touches cells of two holders.
    """
    return model.has_window and not streams
