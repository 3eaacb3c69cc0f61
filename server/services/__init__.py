"""Use cases: one class each, and all of them together as `Services`. They know neither HTTP nor JSON."""

from __future__ import annotations

from dataclasses import dataclass

from server.config.schema import Limits
from server.models.registry import ModelRegistry
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.models import ModelService
from server.services.rerank import RerankService


@dataclass(frozen=True, kw_only=True)
class Services:
    """All that the API can ask for. `version` is Hearth's own."""

    chat: ChatService
    completions: CompletionService
    embeddings: EmbeddingService
    rerank: RerankService
    models: ModelService
    version: str


def build_services(registry: ModelRegistry, limits: Limits, *, started_at_s: int, version: str) -> Services:
    """One of each over the same models; `started_at_s` is Unix time."""
    return Services(
        chat=ChatService(registry),
        completions=CompletionService(registry),
        embeddings=EmbeddingService(registry, limits),
        rerank=RerankService(registry, limits),
        models=ModelService(registry, started_at_s=started_at_s),
        version=version,
    )
