"""What a request may take of the tokens of its key: told from its body, before any model has seen it."""

from __future__ import annotations

from server.access.key_account import Expected
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.embeddings import (
    CohereEmbedRequest,
    EmbeddingRequest,
    OllamaEmbedRequest,
    OllamaLegacyRequest,
    TeiEmbedRequest,
)
from server.api.schemas.evaluation import EvaluationRequest
from server.api.schemas.messages import MessageRequest
from server.api.schemas.rerank import RerankRequest
from server.api.schemas.responses import ResponseRequest
from server.api.schemas.score import ScoreRequest
from server.api.schemas.tokens import ApplyTemplateRequest
from server.api.schemas.vector_stores import StoreSearch
from server.api.schemas.wire import WireModel

BYTES_PER_TOKEN = 4
"""Of a body, as of most texts; what JSON needs besides makes the estimate rather too high than too low."""

ENCODED = (
    EmbeddingRequest,
    TeiEmbedRequest,
    OllamaEmbedRequest,
    OllamaLegacyRequest,
    CohereEmbedRequest,
    RerankRequest,
    ScoreRequest,
    StoreSearch,
    EvaluationRequest,
)
"""Bodies of texts that models read without answering with any."""


GENERATED = (ChatRequest, CompletionRequest, ResponseRequest, MessageRequest)
"""Bodies that models answer."""


def expected_of(body: WireModel, size_bytes: int) -> Expected | None:
    """What this body, of so many bytes of JSON, may take; None: no model computes anything for it."""
    num_tokens = size_bytes // BYTES_PER_TOKEN
    if isinstance(body, GENERATED) and not isinstance(body, ApplyTemplateRequest):
        return Expected(
            model=body.model,
            num_prompt_tokens=num_tokens,
            num_answers=_num_answers(body),
            max_answer_tokens=body.sampling().get("max_tokens"),
        )
    if isinstance(body, RerankRequest):
        num_tokens += len(body.query) // BYTES_PER_TOKEN * (len(body.documents) - 1)  # it is read with each
    if isinstance(body, ENCODED):
        return Expected(model=getattr(body, "model", None), num_prompt_tokens=num_tokens)
    return None


def _num_answers(body: WireModel) -> int:
    match body:
        case ChatRequest():
            return body.n
        case CompletionRequest():
            return len(body.prompt) * body.num_candidates
        case _:
            return 1
