"""Which model a name means, to whoever asks. Knows what a model can do, not who runs it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import cast

from server.config.rag_section import RagModel
from server.config.schema import ModelConfig
from server.errors import InvalidRequest, ModelNotFound
from server.protocols import ChatModel, EmbeddingModel, RerankModel, ServedModel
from server.types import ModelKind

Allowed = Callable[[], frozenset[str] | None]
"""Tells the ids of the models that whoever asks now may know of; None: all."""

_CANNOT: dict[ModelKind, str] = {"chat": "chat", "embedding": "embed", "rerank": "rerank"}


@dataclass(frozen=True)
class ModelEntry:
    """A configured model and whoever serves it. `model` has the protocol of `config.kind`."""

    config: ModelConfig
    model: ServedModel


class ModelRegistry:
    """All models of this server, in the order of models.yaml. Ids and aliases are unique.

    To whoever may not ask all of them, the others do not exist, in whatever is answered. Every name in a request goes
    through here, so this is the one place that keeps to it.
    """

    def __init__(
        self, entries: Sequence[ModelEntry], rag_models: Sequence[RagModel] = (), *, allowed: Allowed = lambda: None
    ) -> None:
        self._allowed = allowed
        self.replace(entries, rag_models)

    def replace(self, entries: Sequence[ModelEntry], rag_models: Sequence[RagModel]) -> None:
        """Have other models from now on, at once for everybody; what was found before is not changed by that."""
        self._entries = tuple(entries)
        self._rag_models = tuple(rag_models)
        self._by_name = {name: entry for entry in entries for name in (entry.config.id, *entry.config.aliases)}
        self._rag_by_name = {name: model for model in rag_models for name in (model.id, *model.aliases)}

    @property
    def everything(self) -> ModelRegistry:
        """The same registry as the server itself sees it now, for what is not named by a request."""
        view = copy(self)
        view._allowed = lambda: None
        return view

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Models with weights, or scripts."""
        return tuple(entry for entry in self._entries if self._is_offered(entry.config.id))

    @property
    def rag_models(self) -> tuple[RagModel, ...]:
        """Names under which chat models answer from vector stores."""
        return tuple(model for model in self._rag_models if self._is_offered(model.id))

    def rag_model(self, name: str) -> RagModel | None:
        """Return the RAG model of this id or alias; None if it is not one."""
        model = self._rag_by_name.get(name)
        return model if model is not None and self._is_offered(model.id) else None

    def chat_of(self, rag_model: RagModel) -> ModelEntry:
        """Return the chat model that a RAG model is made of, for whoever may ask that."""
        return self._by_name[rag_model.chat_model]

    def resolve(self, name: str) -> ModelEntry:
        """Return the model of this id or alias.

        Raises:
            ModelNotFound: There is none.
        """
        entry = self._by_name.get(name)
        if entry is None or not self._is_offered(entry.config.id):
            raise self._not_found(name)
        return entry

    def default(self, kind: ModelKind) -> ModelEntry:
        """Return the first model of a kind, for requests that name none.

        Raises:
            ModelNotFound: This server has no model of that kind.
        """
        entries = self._of_kind(kind)
        if not entries:
            raise ModelNotFound(f"this server has no {kind} model; add one to models.yaml", param="model")
        return entries[0]

    def chat(self, name: str | None) -> tuple[ModelConfig, ChatModel]:
        """Return the chat model of this name; the first one for None.

        Raises:
            ModelNotFound: No model has this name.
            InvalidRequest: The model is of another kind.
        """
        entry = self._find(name, "chat")
        return entry.config, cast(ChatModel, entry.model)

    def chat_or_rag(self, name: str | None) -> tuple[ModelConfig, ChatModel, RagModel | None]:
        """Return the chat model of this name, or that of the RAG model of this name, with it; otherwise as `chat`."""
        rag_model = self.rag_model(name) if name is not None else None
        if rag_model is None:
            return *self.chat(name), None
        entry = self.chat_of(rag_model)
        return entry.config, cast(ChatModel, entry.model), rag_model

    def embedding(self, name: str | None) -> tuple[ModelConfig, EmbeddingModel]:
        """Return the embedding model of this name; otherwise as `chat`."""
        entry = self._find(name, "embedding")
        return entry.config, cast(EmbeddingModel, entry.model)

    def rerank(self, name: str | None) -> tuple[ModelConfig, RerankModel]:
        """Return the rerank model of this name; otherwise as `chat`."""
        entry = self._find(name, "rerank")
        return entry.config, cast(RerankModel, entry.model)

    def _find(self, name: str | None, kind: ModelKind) -> ModelEntry:
        if name is not None and self.rag_model(name) is not None:
            raise self._mismatch(f"model {name!r} answers chats from vector stores, and can do nothing else", kind)
        entry = self.default(kind) if name is None else self.resolve(name)
        if entry.config.kind != kind:
            raise self._mismatch(f"model {name!r} is of kind {entry.config.kind!r} and cannot {_CANNOT[kind]}", kind)
        return entry

    def _mismatch(self, message: str, wanted: ModelKind) -> InvalidRequest:
        able = ", ".join(entry.config.id for entry in self._of_kind(wanted)) or "none"
        return InvalidRequest(f"{message}; {wanted} models here: {able}", param="model", code="model_kind_mismatch")

    def _not_found(self, name: str) -> ModelNotFound:
        offered: list[ModelConfig | RagModel] = [*(entry.config for entry in self.entries), *self.rag_models]
        names = [known for model in offered for known in (model.id, *model.aliases)]
        closest = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {closest[0]!r}?" if closest else ""
        ids = ", ".join(model.id for model in offered) or "none that you may ask"
        return ModelNotFound(f"model {name!r} does not exist; this server has {ids}{hint}", param="model")

    def _of_kind(self, kind: ModelKind) -> list[ModelEntry]:
        return [entry for entry in self.entries if entry.config.kind == kind]

    def _is_offered(self, model_id: str) -> bool:
        allowed = self._allowed()
        return allowed is None or model_id in allowed
