"""This step's tokens, as preallocated arrays: filling them makes no Python object per token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Batch:
    """Tokens of several sequences, each run of a sequence in position order.

    Attributes:
        num_tokens: Tokens filled in so far.
        num_outputs: Those of them that want logits.
        num_decode_tokens: Tokens of runs in which every token wants logits; `is_decode` tells which.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token_ids = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._seq_ids = np.zeros(capacity, np.int32)
        self._wants_logits = np.zeros(capacity, np.bool_)
        self._is_decode = np.zeros(capacity, np.bool_)
        self._counting = np.arange(capacity, dtype=np.int32)
        self.clear()

    def clear(self) -> None:
        self.num_tokens = self.num_outputs = self.num_decode_tokens = 0

    def add(self, seq_id: int, token_ids: Sequence[int], *, start: int, num_outputs: int) -> None:
        """Append tokens of one sequence.

        Args:
            start: Position of the first of them.
            num_outputs: How many of the last of them want logits.
        """
        count = len(token_ids)
        begin, end = self.num_tokens, self.num_tokens + count
        assert begin < end <= self.capacity
        self._seq_ids[begin:end] = seq_id
        self._token_ids[begin:end] = token_ids
        np.add(self._counting[:count], start, out=self._positions[begin:end])
        self._wants_logits[begin : end - num_outputs] = False
        self._wants_logits[end - num_outputs : end] = True
        self._is_decode[begin:end] = num_outputs == count
        self.num_decode_tokens += count * (num_outputs == count)
        self.num_tokens = end
        self.num_outputs += num_outputs

    def set_decodes(self, seq_ids: Sequence[int], token_ids: Sequence[int], positions: Sequence[int]) -> None:
        """Fill an empty batch with one token of each of several sequences, all of which want logits.

        What `add` would do one by one, in a tenth of the time: nearly all steps of a busy server are like this.
        """
        count = len(seq_ids)
        assert self.num_tokens == 0 < count <= self.capacity
        self._seq_ids[:count] = seq_ids
        self._token_ids[:count] = token_ids
        self._positions[:count] = positions
        self._wants_logits[:count] = self._is_decode[:count] = True
        self.num_tokens = self.num_outputs = self.num_decode_tokens = count

    @property
    def token_ids(self) -> npt.NDArray[np.int32]:
        return self._token_ids[: self.num_tokens]

    @property
    def positions(self) -> npt.NDArray[np.int32]:
        return self._positions[: self.num_tokens]

    @property
    def seq_ids(self) -> npt.NDArray[np.int32]:
        return self._seq_ids[: self.num_tokens]

    @property
    def wants_logits(self) -> npt.NDArray[np.bool_]:
        return self._wants_logits[: self.num_tokens]

    @property
    def is_decode(self) -> npt.NDArray[np.bool_]:
        return self._is_decode[: self.num_tokens]
