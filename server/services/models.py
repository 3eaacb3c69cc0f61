"""Models: what is served, in which state, and whether the server is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from server.config.rag_section import RagModel
from server.config.schema import Display, ModelConfig
from server.models.registry import ModelEntry, ModelRegistry
from server.types import EncoderCounts, LoadProgress, ModelFacts, ModelKind, ModelState


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One model as clients see it.

    Attributes:
        created_s: Unix time at which this server began to offer it.
        capabilities: As configured; of a RAG model besides: `file_search`.
        context_length: Tokens of one request; None before the first load where the configuration does not say.
        dimensions: Length of an embedding; None for other kinds and before the first load.
        failure: Why `state` is `failed`; None otherwise.
        facts: What the last load found out; None before the first.
        encoded: What the worker of an embedding or rerank model has computed; None where there is no such worker.
        progress: How far it has come; None unless it is loading.
        waiting_for: What keeps a load from going on; None if nothing does.
        num_requests: Requests in flight, those that wait for the model to load included.
        memory_bytes: What its worker held when it was last measured.
        expires_in_s: When it will be unloaded unless somebody asks it; None: never, or not while it is asked.
        rag: Of a RAG model: how it is bound; all the rest is its chat model's.
    """

    id: str
    created_s: int
    kind: ModelKind
    capabilities: tuple[str, ...]
    context_length: int | None
    dimensions: int | None
    state: ModelState
    failure: str | None
    facts: ModelFacts | None
    encoded: EncoderCounts | None
    progress: LoadProgress | None
    waiting_for: str | None
    num_requests: int
    memory_bytes: int | None
    expires_in_s: float | None
    is_pinned: bool
    description: str
    aliases: tuple[str, ...]
    display: Display
    rag: RagModel | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether every model that should be loaded can answer, and one by one those that whoever asks may know of."""

    is_ready: bool
    models: tuple[ModelView, ...]


class ModelService:
    """Answers questions about the configured models; changes nothing.

    Args:
        ttl_s: After how long without a request a model is unloaded; 0: never.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        started_at_s: int,
        ttl_s: Callable[[ModelConfig], float] = lambda _config: 0,
    ) -> None:
        self._registry = registry
        self._started_at_s = started_at_s
        self._ttl_s = ttl_s

    def list(self) -> tuple[ModelView, ...]:
        """All models, in the order of models.yaml."""
        views = (self._view(entry) for entry in self._registry.entries)
        return (*views, *map(self._rag_view, self._registry.rag_models))

    def get(self, name: str) -> ModelView:
        """The model of that id or alias. Raises ModelNotFound."""
        if rag_model := self._registry.rag_model(name):
            return self._rag_view(rag_model)
        return self._view(self._registry.resolve(name))

    def readiness(self) -> Readiness:
        """Ready means: every model is loaded, save those that are loaded when somebody asks for them."""
        return Readiness(
            is_ready=all(
                entry.model.state == "ready" or (entry.model.loads_on_demand and entry.model.state != "failed")
                for entry in self._registry.everything.entries
            ),
            models=tuple(self._view(entry) for entry in self._registry.entries),
        )

    def _rag_view(self, rag_model: RagModel) -> ModelView:
        chat = self._view(self._registry.chat_of(rag_model))
        return replace(
            chat,
            id=rag_model.id,
            capabilities=(*(each for each in chat.capabilities if each != "completion"), "file_search"),
            description=rag_model.description,
            aliases=rag_model.aliases,
            rag=rag_model,
        )

    def _view(self, entry: ModelEntry) -> ModelView:
        config, facts = entry.config, entry.model.facts
        ttl_s, idle_s = self._ttl_s(config), entry.model.idle_s
        return ModelView(
            id=config.id,
            created_s=self._started_at_s,
            kind=config.kind,
            capabilities=config.effective_capabilities,
            context_length=facts.context_length if facts else config.context,
            dimensions=(facts.dimensions or None) if facts else None,
            state=entry.model.state,
            failure=entry.model.failure,
            facts=facts,
            encoded=entry.model.encoded,
            progress=entry.model.progress,
            waiting_for=entry.model.waiting_for,
            num_requests=entry.model.num_requests,
            memory_bytes=entry.model.memory_bytes,
            expires_in_s=max(0.0, ttl_s - idle_s) if ttl_s and idle_s is not None else None,
            is_pinned=config.pinned,
            description=config.description,
            aliases=config.aliases,
            display=config.display,
        )
