"""Which model a name means. Knows what a model can do, not who runs it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from server.config.rag_section import RagModel
from server.config.schema import ModelConfig
from server.errors import InvalidRequest, ModelNotFound
from server.protocols import ChatModel, EmbeddingModel, RerankModel, ServedModel
from server.types import ModelKind

_CANNOT: dict[ModelKind, str] = {"chat": "chat", "embedding": "embed", "rerank": "rerank"}


@dataclass(frozen=True)
class ModelEntry:
    """A configured model and whoever serves it. `model` has the protocol of `config.kind`."""

    config: ModelConfig
    model: ServedModel


class ModelRegistry:
    """All models of this server, in the order of models.yaml. Ids and aliases are unique.

    Attributes:
        entries: Models with weights, or scripts.
        rag_models: Names under which chat models among them answer from vector stores.
    """

    entries: tuple[ModelEntry, ...]
    rag_models: tuple[RagModel, ...]

    def __init__(self, entries: Sequence[ModelEntry], rag_models: Sequence[RagModel] = ()) -> None:
        self.replace(entries, rag_models)

    def replace(self, entries: Sequence[ModelEntry], rag_models: Sequence[RagModel]) -> None:
        """Have other models from now on, at once for everybody; what was found before is not changed by that."""
        self.entries = tuple(entries)
        self.rag_models = tuple(rag_models)
        self._by_name = {name: entry for entry in entries for name in (entry.config.id, *entry.config.aliases)}
        self._rag_by_name = {name: model for model in rag_models for name in (model.id, *model.aliases)}

    def rag_model(self, name: str) -> RagModel | None:
        """Return the RAG model of this id or alias; None if it is not one."""
        return self._rag_by_name.get(name)

    def resolve(self, name: str) -> ModelEntry:
        """Return the model of this id or alias.

        Raises:
            ModelNotFound: There is none.
        """
        entry = self._by_name.get(name)
        if entry is None:
            closest = difflib.get_close_matches(name, [*self._by_name, *self._rag_by_name], n=1)
            hint = f"; did you mean {closest[0]!r}?" if closest else ""
            ids = [entry.config.id for entry in self.entries] + [model.id for model in self.rag_models]
            message = f"model {name!r} does not exist; this server has {', '.join(ids)}{hint}"
            raise ModelNotFound(message, param="model")
        return entry

    def default(self, kind: ModelKind) -> ModelEntry:
        """Return the first model of a kind, for requests that name none.

        Raises:
            ModelNotFound: This server has no model of that kind.
        """
        entries = self._of_kind(kind)
        if not entries:
            message = f"this server has no {kind} model; it has {self._names(self.entries)}"
            raise ModelNotFound(message, param="model")
        return entries[0]

    def chat(self, name: str | None) -> tuple[ModelConfig, ChatModel]:
        """Return the chat model of this name; the first one for None.

        Raises:
            ModelNotFound: No model has this name.
            InvalidRequest: The model is of another kind.
        """
        entry = self._find(name, "chat")
        return entry.config, cast(ChatModel, entry.model)

    def embedding(self, name: str | None) -> tuple[ModelConfig, EmbeddingModel]:
        """Return the embedding model of this name; otherwise as `chat`."""
        entry = self._find(name, "embedding")
        return entry.config, cast(EmbeddingModel, entry.model)

    def rerank(self, name: str | None) -> tuple[ModelConfig, RerankModel]:
        """Return the rerank model of this name; otherwise as `chat`."""
        entry = self._find(name, "rerank")
        return entry.config, cast(RerankModel, entry.model)

    def _find(self, name: str | None, kind: ModelKind) -> ModelEntry:
        if name is not None and name in self._rag_by_name:
            raise self._mismatch(f"model {name!r} answers chats from vector stores, and can do nothing else", kind)
        entry = self.default(kind) if name is None else self.resolve(name)
        if entry.config.kind != kind:
            raise self._mismatch(f"model {name!r} is of kind {entry.config.kind!r} and cannot {_CANNOT[kind]}", kind)
        return entry

    def _mismatch(self, message: str, wanted: ModelKind) -> InvalidRequest:
        able = self._names(self._of_kind(wanted)) or "none"
        return InvalidRequest(f"{message}; {wanted} models here: {able}", param="model", code="model_kind_mismatch")

    def _of_kind(self, kind: ModelKind) -> list[ModelEntry]:
        return [entry for entry in self.entries if entry.config.kind == kind]

    @staticmethod
    def _names(entries: Sequence[ModelEntry]) -> str:
        return ", ".join(entry.config.id for entry in entries)
