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
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token_ids = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._seq_ids = np.zeros(capacity, np.int32)
        self._wants_logits = np.zeros(capacity, np.bool_)
        self.num_tokens = 0
        self.num_outputs = 0

    def clear(self) -> None:
        self.num_tokens = 0
        self.num_outputs = 0

    def add(self, seq_id: int, token_ids: Sequence[int], *, start: int, wants_logits: bool) -> None:
        """Append tokens of one sequence.

        Args:
            start: Position of the first of them.
            wants_logits: Whether the last of them wants logits.
        """
        begin, end = self.num_tokens, self.num_tokens + len(token_ids)
        assert begin < end <= self.capacity
        self._token_ids[begin:end] = token_ids
        self._positions[begin:end] = np.arange(start, start + len(token_ids), dtype=np.int32)
        self._seq_ids[begin:end] = seq_id
        self._wants_logits[begin:end] = False
        self._wants_logits[end - 1] = wants_logits
        self.num_tokens = end
        self.num_outputs += wants_logits

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
