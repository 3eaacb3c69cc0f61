"""Use cases: one class each. They know neither HTTP nor JSON."""

from __future__ import annotations

from dataclasses import dataclass

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
