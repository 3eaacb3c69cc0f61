"""The whole route table."""

from __future__ import annotations

from starlette.routing import Route

from server.api.body import JsonBody
from server.api.chat import ChatEndpoint
from server.api.cohere import CohereEndpoint
from server.api.completions import CompletionEndpoint
from server.api.embeddings import EmbeddingEndpoint
from server.api.health import HealthEndpoint
from server.api.models import ModelEndpoint
from server.api.ollama import OllamaEndpoint
from server.api.rerank import RerankEndpoint
from server.api.score import ScoreEndpoint
from server.api.tei import TeiEndpoint
from server.config.schema import Limits
from server.services import Services

HEALTH_PATHS = ("/health", "/health/live", "/livez", "/ready", "/health/ready", "/readyz")
"""Asked every few seconds by machines, so not in the access log."""

RERANK_PATHS = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
"""Wherever a client of some API looks for rerank; see `rerank_dialects`."""


def build_routes(services: Services, limits: Limits) -> list[Route]:
    body = JsonBody(limits.max_body_mb * 1024 * 1024)
    fingerprint = f"hearth-{services.version}"
    chat = ChatEndpoint(services.chat, body, fingerprint=fingerprint)
    completions = CompletionEndpoint(services.completions, body, fingerprint=fingerprint)
    embeddings = EmbeddingEndpoint(services.embeddings, body)
    tei = TeiEndpoint(services, body, limits)
    ollama = OllamaEndpoint(services.embeddings, body)
    cohere = CohereEndpoint(services.embeddings, body)
    rerank = RerankEndpoint(services.rerank, body)
    score = ScoreEndpoint(services.rerank, body)
    models = ModelEndpoint(services.models)
    health = HealthEndpoint(services.models, services.version)
    return [
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/completions", completions.create, methods=["POST"]),
        Route("/v1/embeddings", embeddings.create, methods=["POST"]),
        Route("/embed", tei.embed, methods=["POST"]),
        Route("/tokenize", tei.tokenize, methods=["POST"]),
        Route("/info", tei.info),
        Route("/api/embed", ollama.embed, methods=["POST"]),
        Route("/api/embeddings", ollama.embed_one, methods=["POST"]),
        Route("/v1/embed", cohere.embed_v1, methods=["POST"]),
        Route("/v2/embed", cohere.embed_v2, methods=["POST"]),
        *(Route(path, rerank.create, methods=["POST"]) for path in RERANK_PATHS),
        Route("/v1/score", score.create, methods=["POST"]),
        Route("/score", score.create, methods=["POST"]),
        Route("/v1/models", models.list),
        Route("/v1/models/{model:path}", models.get),  # aliases may hold slashes
        Route("/health", health.live),
        Route("/health/live", health.live),
        Route("/livez", health.live),
        Route("/ready", health.ready),
        Route("/health/ready", health.ready),
        Route("/readyz", health.ready),
        Route("/version", health.version),
    ]
