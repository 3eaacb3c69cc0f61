"""What a cross-encoder says of texts besides the chunks of a search: sentences of an answer, documents of a request."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

from server.errors import HearthError
from server.protocols import RerankModel
from server.rag.reranking import MAX_TOKENS, SOFT_SHARE

logger = logging.getLogger(__name__)


async def relevance(model: RerankModel, query: str, texts: Sequence[str], *, timeout_s: float) -> list[float | None]:
    """Tell how relevant texts are to a query, 0..1 in their order; None of those that were not scored in time.

    Never fails: a model that cannot answer has scored none.
    """
    try:
        async with asyncio.timeout(timeout_s):
            result = await model.rerank(
                query, texts, truncate="end", max_tokens_per_doc=MAX_TOKENS, timeout_s=SOFT_SHARE * timeout_s
            )
    except TimeoutError:
        return _none_of(texts, f"the reranker did not answer within {timeout_s:g} s")
    except HearthError as exc:
        return _none_of(texts, exc.message)
    return [None if math.isnan(score) else score for score in result.relevance.tolist()]


def _none_of(texts: Sequence[str], reason: str) -> list[float | None]:
    logger.warning("relevance is not known", extra={"reason": reason})
    return [None] * len(texts)
