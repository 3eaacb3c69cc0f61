"""What a service may ask of a model, whoever serves it: a local worker today, a remote upstream later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.types import Delta, Finished, GenerateRequest, ModelFacts, ModelState, Started


@dataclass(frozen=True)
class EmbeddingResult:
    """Vectors in input order.

    Attributes:
        vectors: float32 [num_inputs, dimensions], each row of L2 norm 1; owned by the caller.
        num_prompt_tokens: Tokens of all inputs after truncation.
        num_truncated: Inputs that lost text to truncation.
    """

    vectors: npt.NDArray[np.float32]
    num_prompt_tokens: int
    num_truncated: int = 0


@dataclass(frozen=True)
class RerankResult:
    """Relevance of each document to the query, in input order.

    Attributes:
        scores: float32 [num_documents], the raw logits of the cross-encoder; the service turns them into 0..1.
        num_prompt_tokens: Tokens of all query-document pairs after truncation.
        num_truncated: Documents that lost text to truncation.
    """

    scores: npt.NDArray[np.float32]
    num_prompt_tokens: int
    num_truncated: int = 0


class ServedModel(Protocol):
    """The state that every served model shows, ready or not."""

    @property
    def state(self) -> ModelState: ...

    @property
    def failure(self) -> str | None:
        """Why the state is `failed`, for people; None otherwise."""

    @property
    def facts(self) -> ModelFacts | None:
        """What the last load found; None before the first."""


class ChatModel(ServedModel, Protocol):
    """Generates text."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        """Yield `Started`, any number of `Delta`, then `Finished`.

        Closing the generator early aborts the work and frees its memory within one engine step.

        Raises:
            InvalidRequest: Prompt or parameters are refused; raised before `Started`.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """


class EmbeddingModel(ServedModel, Protocol):
    """Turns texts into vectors (bi-encoder)."""

    async def embed(self, texts: Sequence[str], *, truncate: bool = False) -> EmbeddingResult:
        """Embed non-empty texts, keeping their order. Cancelling drops what has not been computed yet.

        Raises:
            ContextLengthExceeded: A text is longer than the model accepts and `truncate` is false.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """


class RerankModel(ServedModel, Protocol):
    """Scores documents against a query (cross-encoder)."""

    async def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> RerankResult:
        """Score each document. Errors as in `EmbeddingModel.embed`; only documents are ever truncated."""
