"""Which routes ask a model, in whatever dialect: what limits, deadlines and shares are about."""

from __future__ import annotations

import re

from starlette.types import Scope

MODEL_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/v1/embeddings",
        "/embed",
        "/api/embed",
        "/api/embeddings",
        "/v1/embed",
        "/v2/embed",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/v1/reranking",
        "/reranking",
        "/v1/score",
        "/score",
        "/v1/tokenize",
        "/v1/detokenize",
        "/v1/chat/apply_template",
        "/tokenize",
        "/detokenize",
        "/chat/apply_template",
    }
)
"""Paths whose POST asks a model. What is ingested is embedded later, by jobs that nobody waits for."""

_STORE_PATHS = re.compile(r"/v1/vector_stores/[^/]+/(?:search|evaluate)")


def is_model_path(method: str, path: str) -> bool:
    """Whether a request asks a model while it is waited for; fields of the path may stand for themselves."""
    return method == "POST" and (path in MODEL_PATHS or _STORE_PATHS.fullmatch(path) is not None)


def asks_model(scope: Scope) -> bool:
    return is_model_path(scope["method"], scope["path"])
