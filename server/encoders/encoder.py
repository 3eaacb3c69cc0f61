"""What the batcher needs from an encoder: what goes in, what it looks like once it is tokenised, what comes out.

An encoder is a model that reads whole inputs and writes one row per item: `Embedder` (text -> vector) and
`Reranker` (query and document -> score). Knows neither threads nor requests.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from server.types import ModelFacts, Token, TokenIds, Truncate

Rows = npt.NDArray[np.float32]
"""float32 [num_items, dimensions] of an embedder, as it pooled them; [num_items] of a reranker."""

Features = dict[str, npt.NDArray[np.int64]]
"""Padded model inputs by name, each int64 [num_items, max_len]."""


@dataclass(frozen=True)
class Texts:
    """The inputs of an embedder; `EmbeddingModel.embed` tells what the fields mean."""

    inputs: Sequence[str | TokenIds]
    truncate: Truncate = "error"
    prompt: str | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Pairs:
    """The inputs of a reranker, one for each document; `RerankModel.rerank` tells what the fields mean."""

    query: str
    documents: Sequence[str]
    truncate: Truncate = "error"
    max_tokens_per_doc: int | None = None

    def __len__(self) -> int:
        return len(self.documents)


InputsT_contra = TypeVar("InputsT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """What the model reads at a time: a tokenised input, special tokens included, never longer than it accepts.

    Attributes:
        token_ids: The model's own vocabulary. Arrays of 4 bytes, as a list takes 36 for each, and a request may have
            more tokens than a body of 32 MB has words.
        type_ids: Segment of each token: 0 for the first text, 1 for the second of a pair. Arrays of 1 byte.
        is_truncated: Whether text was cut off to make it fit.
        is_continuation: Whether it goes on where the item before it stopped: a further window of the same input.
    """

    token_ids: Sequence[int]
    type_ids: Sequence[int]
    is_truncated: bool = False
    is_continuation: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    def digest(self) -> bytes:
        """Name all that the model reads: items with the same digest have the same row, whatever they were made of."""
        content = hashlib.sha256(array("i", self.token_ids))
        content.update(bytes(self.type_ids))
        return content.digest()


MAX_BATCH_TOKENS = 1024
"""What torch and ONNX compute at a time on a CPU. Measured on 2 busy cores with texts of 8-200 words: fp32 is equally
fast from 512 to 2048, and slower beyond."""

USUAL_GPU_BATCH_TOKENS = 16_384
"""What torch computes at a time on a GPU, where it was not measured how much is enough."""


def usual_batch_tokens(device: str) -> int:
    """How much is computed at a time where nothing was measured; `device` is `cpu`, or a GPU."""
    return MAX_BATCH_TOKENS if device == "cpu" else USUAL_GPU_BATCH_TOKENS


@dataclass(frozen=True)
class TokenBudget:
    """How large a batch may be: beyond this a model gets no faster, and whoever comes next waits longer.

    Attributes:
        max_tokens: Of one forward pass, padding included.
        is_packed: Whether the model computes no padding, so that items of any length go together.
    """

    max_tokens: int
    is_packed: bool = False


class EncoderBroken(Exception):
    """A forward pass failed in a way that no later one can mend: the process has to end."""


@runtime_checkable
class ShowsProgress(Protocol):
    """An encoder whose forward passes may take minutes, and that shows meanwhile that it computes."""

    @property
    def num_operations(self) -> int:
        """Grows while a forward pass gets on; read by other threads."""


class Encoder(Protocol[InputsT_contra]):
    """A loaded model. `tokenize` may be called from several threads, `forward` from one at a time."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def budget(self) -> TokenBudget: ...

    def tokenize(self, inputs: InputsT_contra) -> list[EncodedItem]:
        """Tokenise `Texts` or `Pairs`, keeping their order: an item for each, or several in a row for its windows.

        Raises:
            InvalidRequest: An input is not what the model can read.
            ContextLengthExceeded: An input is too long and may not, or cannot, be cut.
        """

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Compute one row per item, in order; memory and time grow with `max_len * num_items`.

        Raises:
            EncoderBroken: The device does not compute any more.
        """


@runtime_checkable
class Speller(Protocol):
    """An encoder that can tell the tokens of a text. May be called from any thread."""

    def spell(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[Token]]:
        """Tell the tokens of each text, of those too that are somewhat longer than the model accepts.

        Raises:
            InvalidRequest: The model cannot tell where its tokens stand.
            ContextLengthExceeded: A text is much longer.
        """


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
