"""Which models a vector store is served with, and whether its vectors are still theirs."""

from __future__ import annotations

from server.config.rag_section import NO_MODEL, RagSettings
from server.config.schema import ModelConfig
from server.errors import Conflict, HearthError, ModelNotFound
from server.models.registry import ModelRegistry
from server.protocols import ChatModel, EmbeddingModel, RerankModel
from server.rag.contexts import ContextModel
from server.rag.documents import ReindexRecord, StoreRecord
from server.rag.reranking import RerankPolicy
from server.services.model_facts import facts_of
from server.types import ModelFacts


class StoreModels:
    """Finds models for vector stores. A store keeps the embedding model that it was made with.

    Whoever may use vector stores gets what the operator has chosen for them, whatever models they may ask themselves;
    only those that a request names are theirs to be refused.
    """

    def __init__(self, registry: ModelRegistry, settings: RagSettings) -> None:
        self._offered = registry
        self.configure(settings)

    def configure(self, settings: RagSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self.rerank_policy = RerankPolicy(
            num_candidates=settings.rerank_candidates, timeout_s=settings.rerank_timeout_s
        )
        self.rewrite_timeout_s = settings.rewrite_timeout_s

    @property
    def _registry(self) -> ModelRegistry:
        return self._offered.everything

    async def for_new_store(self) -> tuple[ModelConfig, ModelFacts]:
        """Return the embedding model of new stores, loaded.

        Raises:
            ModelNotFound: This server has no embedding model.
            ModelUnavailable: It cannot be loaded now.
        """
        return await self.for_reindex(None)

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
                f"not have; add it to models.yaml, or {_reindex(store.id)}"
            ) from exc
        if not await _is_of(embedder, store):
            raise Conflict(
                f"vector store {store.id!r} holds vectors of model {store.embedding_model!r} as it was before its "
                "weights, pooling, prompts, dimensions or longest input changed; change that back, or "
                f"{_reindex(store.id)}"
            )
        return embedder

    def is_ready(self, store: StoreRecord) -> bool:
        """Whether `embedder` answers at once, if only to say that there is no such model."""
        try:
            _, embedder = self._registry.embedding(store.embedding_model)
        except HearthError:
            return True
        return embedder.state == "ready"

    async def for_reindex(self, name: str | None) -> tuple[ModelConfig, ModelFacts]:
        """Return the embedding model of this name, that of new stores for None, loaded.

        Raises:
            ModelNotFound: There is none.
            InvalidRequest: The model is of another kind.
            ModelUnavailable: It cannot be loaded now.
        """
        if name:
            config, embedder = self._offered.embedding(name)
        else:
            config, embedder = self._registry.embedding(self._settings.embedding_model)
        return config, await facts_of(embedder)

    async def new_embedder(self, reindex: ReindexRecord) -> EmbeddingModel:
        """Return the model that a store is embedded with anew, loaded.

        Raises:
            Conflict: It is not the same any more as when the reindex was begun.
            ModelUnavailable: It cannot be loaded now.
        """
        try:
            _, embedder = self._registry.embedding(reindex.embedding_model)
        except ModelNotFound as exc:
            raise Conflict(
                f"this server does not have model {reindex.embedding_model!r} any more; begin another reindex"
            ) from exc
        if not await _is_of(embedder, reindex):
            raise Conflict(
                f"model {reindex.embedding_model!r} has changed since the reindex was begun; begin another one"
            )
        return embedder

    def id_of(self, name: str, fingerprint: str) -> str:
        """Return what this server calls the model that has vectors of a fingerprint; the name if it does not know."""
        for entry in self._registry.entries:
            if entry.model.facts is not None and entry.model.facts.fingerprint == fingerprint:
                return entry.config.id
        return name

    def reranker(self) -> RerankModel | None:
        """Return the model that sorts what searches find; None where there shall be none, or there is none."""
        if self._settings.rerank_model == NO_MODEL:
            return None
        try:
            _, reranker = self._registry.rerank(self._settings.rerank_model)
        except ModelNotFound:
            return None
        return reranker

    def chat_model(self) -> tuple[ModelConfig, ChatModel] | None:
        """Return the model that rewrites questions and tells where chunks stand; None as for `reranker`."""
        if self._settings.chat_model == NO_MODEL:
            return None
        try:
            return self._registry.chat(self._settings.chat_model)
        except ModelNotFound:
            return None

    def context_model(self) -> ContextModel | None:
        """The same as whoever writes contexts needs it."""
        found = self.chat_model()
        return ContextModel(found[0].id, found[1]) if found else None


async def _is_of(embedder: EmbeddingModel, vectors: StoreRecord | ReindexRecord) -> bool:
    facts = await facts_of(embedder)
    # A fingerprint tells the dimensions as well, but that of an imported store is what somebody has written.
    return (facts.fingerprint, facts.dimensions) == (vectors.fingerprint, vectors.dimensions)


def _reindex(store_id: str) -> str:
    return f"embed the store anew with a model that is here: `hearth reindex {store_id}`, or POST …/reindex"
