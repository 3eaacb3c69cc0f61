"""Rerank: a query and documents in, the documents by relevance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.config.schema import Limits
from server.errors import RequestTooLarge
from server.models.registry import ModelRegistry


@dataclass(frozen=True)
class RankedDocument:
    """`index` into the request's documents; `score` is 0..1."""

    index: int
    score: float


@dataclass(frozen=True)
class Ranking:
    """Documents by falling relevance, ties by index."""

    model_id: str
    documents: tuple[RankedDocument, ...]
    num_prompt_tokens: int
    num_truncated: int


class RerankService:
    """Finds the model, keeps the limits, scores each distinct document once, sorts."""

    def __init__(self, registry: ModelRegistry, limits: Limits) -> None:
        self._registry = registry
        self._max_documents = limits.max_documents

    async def rerank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
    ) -> Ranking:
        """Rank documents by relevance to the query; all of them, or the best `top_n`.

        Args:
            model: Id or alias; None takes the first configured reranker.
            query: Non-empty.
            documents: At least one.
            top_n: How many to return; more than there are means all.
            truncate: Cut documents that are too long instead of refusing them.

        Raises:
            ModelNotFound: No model of that name.
            RequestTooLarge: More documents than `limits.max_documents`.
            InvalidRequest: The model does not rerank.
            ContextLengthExceeded: A document is too long and `truncate` is false.
        """
        config, reranker = self._registry.rerank(model)
        if len(documents) > self._max_documents:
            raise RequestTooLarge(
                f"documents has {len(documents)} items but at most {self._max_documents} are accepted; "
                "send several requests",
                param="documents",
            )
        position = {text: index for index, text in enumerate(dict.fromkeys(documents))}
        result = await reranker.rerank(query, list(position), truncate=truncate)
        scores = sigmoid(result.scores)[[position[text] for text in documents]]
        best_first = np.argsort(-scores, kind="stable")[:top_n]
        return Ranking(
            model_id=config.id,
            documents=tuple(RankedDocument(int(index), float(scores[index])) for index in best_first),
            num_prompt_tokens=result.num_prompt_tokens,
            num_truncated=result.num_truncated,
        )


def sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits to 0..1 in float32: half precision would round good scores into ties. Never overflows."""
    logits = logits.astype(np.float32, copy=False)
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(np.float32, copy=False)
