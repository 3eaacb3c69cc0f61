"""Routes that embed, rerank and score."""

from __future__ import annotations

from server.api.openapi.body import ErrorBody
from server.api.openapi.encoder_bodies import (
    CohereEmbeddings,
    EmbeddingList,
    OllamaEmbedding,
    OllamaEmbeddings,
    PairScores,
    RerankResults,
    TeiError,
    TeiInfo,
    TeiRank,
    Vector,
)
from server.api.openapi.operation import ASKS_MODEL, MODEL, Operation
from server.api.schemas.embeddings import (
    CohereEmbedRequest,
    EmbeddingRequest,
    OllamaEmbedRequest,
    OllamaLegacyRequest,
    TeiEmbedRequest,
)
from server.api.schemas.rerank import RerankRequest
from server.api.schemas.score import ScoreRequest

EMBEDDING_MODEL = "all-minilm-l6-v2"

EMBEDDINGS = (
    Operation(
        method="POST",
        path="/v1/embeddings",
        topic="embeddings",
        summary="Turn texts into vectors",
        body=EmbeddingRequest,
        answer=EmbeddingList,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "input": ["a red cat", "a blue car"]},
    ),
    Operation(
        method="POST",
        path="/embed",
        topic="embeddings",
        summary="Turn texts into vectors, as text-embeddings-inference does",
        body=TeiEmbedRequest,
        answer=list[Vector],
        errors=ASKS_MODEL,
        example={"inputs": ["a red cat"]},
    ),
    Operation(
        method="GET",
        path="/info",
        topic="embeddings",
        summary="Tell what text-embeddings-inference tells of its model",
        answer=TeiInfo,
        errors=MODEL,
    ),
    Operation(
        method="POST",
        path="/api/embed",
        topic="embeddings",
        summary="Turn texts into vectors, as Ollama does",
        body=OllamaEmbedRequest,
        answer=OllamaEmbeddings,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "input": "a red cat"},
    ),
    Operation(
        method="POST",
        path="/api/embeddings",
        topic="embeddings",
        summary="Turn one text into a vector, as older versions of Ollama do",
        body=OllamaLegacyRequest,
        answer=OllamaEmbedding,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "prompt": "a red cat"},
    ),
    *(
        Operation(
            method="POST",
            path=path,
            topic="embeddings",
            summary="Turn texts into vectors, as Cohere does",
            body=CohereEmbedRequest,
            answer=CohereEmbeddings,
            errors=ASKS_MODEL,
            example={"texts": ["a red cat"], "input_type": "search_document"},
        )
        for path in ("/v1/embed", "/v2/embed")
    ),
)

RERANK = (
    *(
        Operation(
            method="POST",
            path=path,
            topic="rerank",
            summary="Sort documents by relevance to a query",
            body=RerankRequest,
            answer=RerankResults | list[TeiRank],
            errors=ASKS_MODEL,
            error_body=ErrorBody | TeiError,
            example={"query": "red cat", "documents": ["a blue car", "a cat that is red"], "top_n": 1},
        )
        for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
    ),
    *(
        Operation(
            method="POST",
            path=path,
            topic="rerank",
            summary="Score pairs of texts",
            body=ScoreRequest,
            answer=PairScores,
            errors=ASKS_MODEL,
            example={"text_1": "red cat", "text_2": ["a blue car", "a cat that is red"]},
        )
        for path in ("/v1/score", "/score")
    ),
)
