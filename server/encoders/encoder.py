"""What the batcher needs from an encoder, and what an encoder's input looks like once it is tokenised.

An encoder is a model that reads whole inputs and writes one row per input: `Embedder` (text -> vector) and
`Reranker` (query and document -> score). Knows neither threads nor requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from server.types import ModelFacts, TokenIds

Rows = npt.NDArray[np.float32]
"""float32 [num_items, dimensions] of an embedder, [num_items] of a reranker."""

Features = dict[str, npt.NDArray[np.int64]]
"""Padded model inputs by name, each int64 [num_items, max_len]."""

InputT_contra = TypeVar("InputT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """One tokenised input, special tokens included, never longer than the model accepts.

    Attributes:
        token_ids: The model's own vocabulary.
        type_ids: Segment of each token: 0 for the first text, 1 for the second of a pair.
        is_truncated: Whether text was cut off to make it fit.
    """

    token_ids: TokenIds
    type_ids: list[int]
    is_truncated: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


class Encoder(Protocol[InputT_contra]):
    """A loaded model. `tokenize` may be called from several threads, `forward` from one at a time."""

    @property
    def facts(self) -> ModelFacts: ...

    def tokenize(self, inputs: Sequence[InputT_contra], *, truncate: bool) -> list[EncodedItem]:
        """Tokenise inputs, keeping their order.

        Raises:
            ContextLengthExceeded: An input is too long and `truncate` is false, or it cannot be cut.
        """

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Compute one row per item, in order; memory and time grow with `max_len * num_items`."""


def pad(items: Sequence[EncodedItem], *, pad_id: int = 0, side: Literal["left", "right"] = "right") -> Features:
    """Lay items out as the rectangle that models want, with the mask that tells text from padding."""
    max_len = max(item.num_tokens for item in items)
    shape = (len(items), max_len)
    token_ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    type_ids = np.zeros(shape, dtype=np.int64)
    for row, item in enumerate(items):
        span = slice(max_len - item.num_tokens, None) if side == "left" else slice(0, item.num_tokens)
        token_ids[row, span] = item.token_ids
        mask[row, span] = 1
        type_ids[row, span] = item.type_ids
    return {"input_ids": token_ids, "attention_mask": mask, "token_type_ids": type_ids}
