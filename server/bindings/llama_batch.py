"""The tokens of one native call: a `llama_batch` over arrays of our own, so that filling it is a few assignments."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np
import numpy.typing as npt


class LlamaBatch:
    """Owns the arrays that `handle` points at; reused for every call of one context.

    Each token belongs to `num_ids` sequences, always as many, so `n_seq_id` never changes and `seq_id[i]` points at
    row i of one array.
    """

    def __init__(self, max_tokens: int, *, num_ids: int = 1) -> None:
        self._token = np.zeros(max_tokens, np.int32)
        self._pos = np.zeros(max_tokens, np.int32)
        self._seq_id = np.zeros((max_tokens, num_ids), np.int32)
        self._output = np.zeros(max_tokens, np.int8)
        self._num_ids = np.full(max_tokens, num_ids, np.int32)
        addresses = self._seq_id.ctypes.data + np.arange(max_tokens, dtype=np.uint64) * self._seq_id.strides[0]
        self._seq_id_pointers = addresses.astype(np.uintp)
        batch = llama_cpp.llama_batch()
        batch.token = self._token.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        batch.pos = self._pos.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos))
        batch.n_seq_id = self._num_ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = ctypes.cast(
            self._seq_id_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id))
        )
        batch.logits = self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self.handle = batch

    def fill(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        seq_ids: npt.NDArray[np.int32],
        wants_output: npt.NDArray[np.bool_],
    ) -> None:
        """Take over a batch: [num_tokens] each, but `seq_ids`: [num_tokens, num_ids]."""
        count = len(token_ids)
        self._token[:count] = token_ids
        self._pos[:count] = positions
        self._seq_id[:count] = seq_ids
        self._output[:count] = wants_output
        self.handle.n_tokens = count
