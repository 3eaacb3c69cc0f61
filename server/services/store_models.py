"""Which models a vector store is served with, and whether its vectors are still theirs."""

from __future__ import annotations

from server.config.schema import NO_MODEL, ModelConfig, RagSettings
from server.errors import Conflict, ModelNotFound
from server.models.registry import ModelRegistry
from server.protocols import EmbeddingModel, RerankModel
from server.rag.documents import StoreRecord
from server.rag.reranking import RerankPolicy
from server.services.model_facts import facts_of
from server.types import ModelFacts


class StoreModels:
    """Finds models for vector stores. A store keeps the embedding model that it was made with."""

    def __init__(self, registry: ModelRegistry, settings: RagSettings) -> None:
        self._registry = registry
        self._settings = settings
        self.rerank_policy = RerankPolicy(
            num_candidates=settings.rerank_candidates, timeout_s=settings.rerank_timeout_s
        )

    async def for_new_store(self) -> tuple[ModelConfig, ModelFacts]:
        """Return the embedding model of new stores, loaded.

        Raises:
            ModelNotFound: This server has no embedding model.
            ModelUnavailable: It cannot be loaded now.
        """
        config, embedder = self._registry.embedding(self._settings.embedding_model)
        return config, await facts_of(embedder)

    async def embedder(self, store: StoreRecord) -> EmbeddingModel:
        """Return the model that a store's vectors come from, loaded.

        Raises:
            Conflict: There is no such model any more, or it is not the same.
            ModelUnavailable: It cannot be loaded now.
        """
        try:
            _, embedder = self._registry.embedding(store.embedding_model)
        except ModelNotFound as exc:
            raise Conflict(
                f"vector store {store.id!r} holds vectors of model {store.embedding_model!r}, which this server does "
                "not have; add it to models.yaml, or put the files into a new vector store"
            ) from exc
        if (await facts_of(embedder)).fingerprint != store.fingerprint:
            raise Conflict(
                f"vector store {store.id!r} holds vectors of model {store.embedding_model!r} as it was before its "
                "weights, pooling, prompts, dimensions or longest input changed; change that back, or put the files "
                "into a new vector store"
            )
        return embedder

    def reranker(self) -> RerankModel | None:
        """Return the model that sorts what searches find; None where there shall be none, or there is none."""
        if self._settings.rerank_model == NO_MODEL:
            return None
        try:
            _, reranker = self._registry.rerank(self._settings.rerank_model)
        except ModelNotFound:
            return None
        return reranker
