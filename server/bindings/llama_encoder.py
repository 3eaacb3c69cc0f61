"""A context for models that read whole sequences and give one row for each: a vector, scores of a classifier, or the
logits of a few tokens that may come next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Literal, Self

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.bindings import llama_log
from server.bindings.gpu_failure import explain_gpu_failure
from server.bindings.llama_batch import LlamaBatch
from server.bindings.llama_model import LlamaModel
from server.errors import InternalError, LoadFailed
from server.types import TokenIds

Pooling = Literal["mean", "cls", "last", "rank"]
"""How the rows of a sequence's tokens become one: their mean, the first, the last; or the classifier's output."""

Tokens = npt.NDArray[np.int32]
"""A sequence: [num_tokens]."""

_POOLING_TYPES: dict[Pooling, int] = {
    "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
    "rank": llama_cpp.LLAMA_POOLING_TYPE_RANK,
}

MAX_CALL_TOKENS = 512
"""Most tokens of several sequences that are computed together."""

MAX_CALL_SEQUENCES = 64
"""llama.cpp aborts unless the tokens that a micro-batch may have are a multiple of the sequences."""

_WIDTH_PER_CALL_TOKEN = 4
"""Attention is computed between all tokens of a call and then masked, so from some size on more costs more than it
saves. The wider a model, the less attention weighs: docs/decisions/0012-gguf-encoders.md has the measurement."""

_OUTPUT_BYTES = 256 << 20
"""Most memory for the outputs of such a call: when pooling, llama.cpp keeps room for the logits of every token, wanted
or not, which is a megabyte per token for a vocabulary of 250,000."""

_MAX_PLAIN_TOKENS = 2048
"""Longer calls, and all on a GPU, use flash attention."""

_CALLS_PER_SHARING_BATCH = 4

_LONG_CALL = 10**12
"""Tokens times parameters from which a call, of some ten seconds, counts its operations. Counting takes the
interpreter's lock some hundred times, and another thread may hold it for 5 ms each time."""

_NO_CALLBACK = llama_cpp.ggml_abort_callback()

_MIN_SHARED_TOKENS = 16
"""A shorter prefix is cheaper to compute again than to compute first: one more call."""


class LlamaEncoder:
    """Owns a `llama_context`. One thread at a time.

    Attributes:
        row_length: Numbers per sequence: dimensions of the embedding, outputs of the classifier, or tokens asked for.
        max_tokens: Most tokens of one sequence.
        call_tokens: Tokens of several sequences that one native call takes.
        batch_tokens: Tokens that are worth handing over at a time: more, where sequences share prefixes.
        num_threads: Compute threads.
        num_operations: Grows with each native call, and within one that may take minutes; for other threads to see.

    Raises:
        LoadFailed: The cache or the compute buffers do not fit into memory.
    """

    def __init__(self, model: LlamaModel, *, readout: Pooling | TokenIds, max_tokens: int, num_threads: int) -> None:
        """Read out what the model pools, or the logits of these tokens behind the last one."""
        self._pooling: Pooling | None = readout if isinstance(readout, str) else None
        self._logit_ids = None if isinstance(readout, str) else np.array(readout)
        self._vocab_size = model.vocab.size
        self.num_threads = num_threads
        self.num_operations = 0
        self._num_parameters = model.num_parameters
        self._on_operation = llama_cpp.ggml_abort_callback(self._count_operation)  # must live as long as the context
        self.max_tokens = max_tokens
        self.row_length = self._row_length(model)
        self.call_tokens = self._choose_call_tokens(model)
        # What is longer than a call goes in pieces where it is read from left to right and only its last token counts.
        # Everything else must be computed at once: llama.cpp aborts on a batch above n_ubatch.
        self._max_ubatch = self.call_tokens
        self._handle: llama_cpp.llama_context_p | None = self._open(model)
        if max_tokens > self.call_tokens and not self._reads_on():
            self.close()
            self._max_ubatch = -(-max_tokens // MAX_CALL_SEQUENCES) * MAX_CALL_SEQUENCES
            self._handle = self._open(model)
        self._memory = llama_cpp.llama_get_memory(self._handle)  # None: the model sees all tokens at once
        self._run_batch = llama_cpp.llama_decode if self._memory else llama_cpp.llama_encode
        self._can_share = self._reads_on() and model.can_share_prefixes and not model.has_window
        self.batch_tokens = self.call_tokens * (_CALLS_PER_SHARING_BATCH if self._can_share else 1)
        self._batch = LlamaBatch(self._max_ubatch)

    def encode(self, sequences: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Compute one row per sequence, in order: float32 [num_sequences, row_length], owned by the caller.

        Takes as many native calls as it needs. Sequences have 1 to `max_tokens` tokens.

        Raises:
            InternalError: llama.cpp could not compute them, for lack of memory most likely.
        """
        tokens = [np.array(each, np.int32) for each in sequences]
        rows = np.empty((len(tokens), self.row_length), np.float32)
        for call in pack(tokens, self.call_tokens, shares_prefixes=self._can_share):
            rows[call] = self._compute([tokens[index] for index in call])
        return rows

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- loading

    def _row_length(self, model: LlamaModel) -> int:
        if self._logit_ids is not None:
            return len(self._logit_ids)
        return len(model.labels) if self._pooling == "rank" else model.dimensions

    def _choose_call_tokens(self, model: LlamaModel) -> int:
        call_tokens = MAX_CALL_TOKENS
        if not model.placement.uses_gpu:
            call_tokens = min(call_tokens, model.width // _WIDTH_PER_CALL_TOKEN)
        if self._pooling is not None:
            call_tokens = min(call_tokens, _OUTPUT_BYTES // (4 * self._vocab_size))
        return max(1, call_tokens // MAX_CALL_SEQUENCES) * MAX_CALL_SEQUENCES

    def _open(self, model: LlamaModel) -> llama_cpp.llama_context_p:
        params = llama_cpp.llama_context_default_params()
        params.embeddings = self._pooling is not None
        params.pooling_type = (
            llama_cpp.LLAMA_POOLING_TYPE_NONE if self._pooling is None else _POOLING_TYPES[self._pooling]
        )
        params.n_ctx = max(self.max_tokens, self._max_ubatch)
        params.n_batch = params.n_ubatch = self._max_ubatch
        params.n_seq_max = MAX_CALL_SEQUENCES
        params.n_threads = params.n_threads_batch = self.num_threads
        params.kv_unified = True  # else a call is cut where lengths differ, and pooling sees the pieces
        params.swa_full = True
        # Fused kernels round to half precision where they are cut differently, so that company would show in a score;
        # but without them attention takes memory for all pairs of tokens: a gigabyte for 4,096.
        is_plain = not model.placement.uses_gpu and self._max_ubatch <= _MAX_PLAIN_TOKENS
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED if is_plain else llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        )
        params.no_perf = True
        llama_log.recent_errors.clear()
        handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not handle:
            reason = explain_gpu_failure(list(llama_log.recent_errors)) or "out of memory; lower `context`"
            raise LoadFailed(f"cannot make a context for {self.max_tokens} tokens: {reason}")
        return handle

    def _reads_on(self) -> bool:
        """Whether a sequence may go in pieces."""
        return (
            llama_cpp.llama_get_memory(self._handle) is not None
            and self._pooling in {None, "last", "rank"}
            and bool(llama_cpp.llama_get_causal_attn(self._handle))
        )

    # ---- one call, or several for a sequence that is longer than one

    def _compute(self, sequences: list[Tokens]) -> npt.NDArray[np.float32]:
        assert len(sequences) <= MAX_CALL_SEQUENCES
        lengths = [len(each) for each in sequences]
        assert min(lengths) > 0
        assert max(lengths) <= self.max_tokens
        try:
            start = self._compute_shared(sequences)
            token_ids = np.concatenate([each[start:] for each in sequences])
            positions = np.concatenate([np.arange(start, length, dtype=np.int32) for length in lengths])
            seq_ids = np.repeat(np.arange(len(sequences), dtype=np.int32), np.array(lengths) - start)
            is_last = positions == np.array(lengths)[seq_ids] - 1
            for begin in range(0, len(token_ids), self._max_ubatch):
                piece = slice(begin, begin + self._max_ubatch)
                self._run(token_ids[piece], positions[piece], seq_ids[piece], is_last[piece])
            return self._read(len(sequences))
        finally:
            if self._memory:
                llama_cpp.llama_memory_clear(self._memory, False)

    def _compute_shared(self, sequences: list[Tokens]) -> int:
        """Compute what all sequences begin with, once, and return its length; 0 where that saves nothing.

        The prompts of a reranker that is a chat model share its instructions and the query.
        """
        length = common_prefix(sequences) if self._can_share and len(sequences) > 1 else 0
        if length == 0:
            return 0
        no_output = np.zeros(length, np.bool_)
        self._run(sequences[0][:length], np.arange(length, dtype=np.int32), np.zeros(length, np.int32), no_output)
        for seq_id in range(1, len(sequences)):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, seq_id, 0, length)
        return length

    def _run(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        seq_ids: npt.NDArray[np.int32],
        wants_output: npt.NDArray[np.bool_],
    ) -> None:
        # llama.cpp answers these with an abort of the process or an opaque -1; here they are bugs of the caller.
        assert 0 < len(token_ids) <= self._max_ubatch
        assert token_ids.min() >= 0
        assert token_ids.max() < self._vocab_size
        # Pooling looks at every token.
        self._batch.fill(token_ids, positions, seq_ids[:, None], wants_output | (self._pooling is not None))
        is_long = self._num_parameters * len(token_ids) >= _LONG_CALL
        llama_cpp.llama_set_abort_callback(self._handle, self._on_operation if is_long else _NO_CALLBACK, None)
        status = self._run_batch(self._handle, self._batch.handle)
        self.num_operations += 1
        if status != 0:
            raise InternalError(f"llama.cpp cannot compute {len(token_ids)} tokens (status {status}); lower `context`")

    def _count_operation(self, _data: int | None) -> bool:
        """Called by llama.cpp after each operation of a CPU, on the thread that computes; true would abort the call.

        A long input is one call: this tells one that takes many minutes from one that hangs.
        """
        self.num_operations += 1
        return False

    def _read(self, num_sequences: int) -> npt.NDArray[np.float32]:
        """Copy the rows out of llama.cpp's buffers: sequences are numbered from 0, and end in the order of numbers."""
        if self._logit_ids is not None:
            pointer = llama_cpp.llama_get_logits(self._handle)
            return np.ctypeslib.as_array(pointer, (num_sequences, self._vocab_size))[:, self._logit_ids]
        pointers = [llama_cpp.llama_get_embeddings_seq(self._handle, seq_id) for seq_id in range(num_sequences)]
        if not all(pointers):
            raise InternalError("llama.cpp gives no row for a sequence")
        return np.stack([np.ctypeslib.as_array(pointer, (self.row_length,)) for pointer in pointers])


def pooling_of(model: LlamaModel) -> Pooling | None:
    """What the file says about pooling; None where it says nothing, or that there is none."""
    number = model.metadata(f"{model.architecture}.pooling_type")
    return next((name for name, each in _POOLING_TYPES.items() if str(each) == number), None)


def pack(sequences: Sequence[Tokens], max_tokens: int, *, shares_prefixes: bool = False) -> Iterator[list[int]]:
    """Share sequences out to calls: lists of their indices. One that is too long for any has a call of its own.

    With `shares_prefixes`, what the sequences of a call begin with counts once, and those that begin alike go together.
    """
    order = range(len(sequences))
    call: list[int] = []
    shared = total = 0
    for index in sorted(order, key=lambda each: sequences[each].tolist()) if shares_prefixes else order:
        length = len(sequences[index])
        still_shared = common_prefix([sequences[call[0]], sequences[index]], shared) if call and shares_prefixes else 0
        is_full = total + length - len(call) * still_shared > max_tokens or len(call) == MAX_CALL_SEQUENCES
        if call and is_full:
            yield call
            call, total = [], 0
        shared = still_shared if call else length
        call.append(index)
        total += length
    if call:
        yield call


def common_prefix(sequences: Sequence[Tokens], limit: int | None = None) -> int:
    """Count the tokens that all begin with, but leave each its last one, whose output is wanted. 0 if it is not worth
    a call of its own; `limit` is known to be an upper bound."""
    length = min([len(each) - 1 for each in sequences] + ([] if limit is None else [limit]))
    is_same = np.all([each[:length] == sequences[0][:length] for each in sequences], axis=0)
    length = length if is_same.all() else int(np.argmin(is_same))
    return length if length >= _MIN_SHARED_TOKENS else 0
