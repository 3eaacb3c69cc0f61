"""Answers of embeddings, rerank and scores, in all their dialects."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.openapi.body import ABSENT, Body, Count, JsonObject, UnixTime

Score = Annotated[float, Field(description="0 to 1, or a logit where that was asked for")]
Vector = list[float]


class EncoderUsage(Body):
    prompt_tokens: Count
    total_tokens: Count
    truncated_inputs: Count
    """inputs that lost text"""
    cached_inputs: Count
    """inputs that nothing was computed for"""


class Embedding(Body):
    object: Literal["embedding"]
    index: Count
    embedding: Vector | str
    """base64 with `"encoding_format": "base64"`"""


class EmbeddingList(Body):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EncoderUsage


class TeiInfo(Body):
    model_id: str
    served_model_name: str
    model_sha: None
    model_dtype: str
    model_type: JsonObject
    max_concurrent_requests: Count
    max_input_length: Count
    max_batch_tokens: Count
    max_client_batch_size: Count
    auto_truncate: bool
    version: str


class OllamaEmbeddings(Body):
    model: str
    embeddings: list[Vector]
    total_duration: Count
    """nanoseconds"""
    load_duration: Count
    prompt_eval_count: Count


class OllamaEmbedding(Body):
    embedding: Vector


class CohereMeta(Body):
    api_version: JsonObject
    billed_units: JsonObject
    tokens: JsonObject
    warnings: list[str] = ABSENT


class CohereEmbeddings(Body):
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    id: str
    embeddings: dict[str, list[Any]] | list[Vector]
    """by type, or the vectors"""
    texts: list[str]
    meta: CohereMeta


class RerankUsage(EncoderUsage):
    scored_documents: Count


class RerankMeta(CohereMeta):
    cached_tokens: Count
    reranked: Count


class RelevantSpan(Body):
    start: Count
    end: Count
    score: Score


class RerankResult(Body):
    index: Count
    """of the document in the request"""
    relevance_score: Score
    document: JsonObject = ABSENT
    relevant_spans: list[RelevantSpan] = ABSENT


class RerankResults(Body):
    """Cohere's, Jina's, vLLM's, llama.cpp's, Infinity's and Xinference's; on `/v2/rerank` without some fields."""

    id: str
    object: Literal["list"] = ABSENT
    model: str = ABSENT
    results: list[RerankResult]
    meta: RerankMeta
    tokens: JsonObject = ABSENT
    usage: RerankUsage
    data: list[JsonObject] = ABSENT
    """Voyage's"""


class TeiRank(Body):
    index: Count
    score: Score
    text: str = ABSENT


class TeiError(Body):
    error: str
    error_type: Literal["Validation", "Overloaded", "Unhealthy", "Backend"]


class PairScore(Body):
    index: Count
    object: Literal["score"]
    score: Score


class PairScores(Body):
    id: str
    object: Literal["list"]
    created: UnixTime
    model: str
    data: list[PairScore]
    usage: EncoderUsage
