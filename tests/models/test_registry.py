from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.config.rag_section import RagModel
from server.config.schema import ModelConfig
from server.errors import InvalidRequest, ModelNotFound
from server.models.registry import ModelEntry, ModelRegistry
from server.protocols import ServedModel


def entry(model_id: str, kind: Any, *aliases: str) -> ModelEntry:
    config = ModelConfig(id=model_id, kind=kind, backend="llama_cpp", source="hf:o/r", aliases=aliases)
    return ModelEntry(config, cast(ServedModel, SimpleNamespace()))


CHAT, EMBED, OTHER = entry("qwen", "chat", "gpt-4o"), entry("minilm", "embedding"), entry("smol", "chat")
REGISTRY = ModelRegistry([CHAT, EMBED, OTHER])


def test_model_is_found_by_id_and_alias() -> None:
    assert REGISTRY.resolve("qwen") is CHAT
    assert REGISTRY.resolve("gpt-4o") is CHAT


def test_unknown_model_is_answered_with_what_there_is() -> None:
    with pytest.raises(ModelNotFound) as caught:
        REGISTRY.resolve("quen")

    expected = "model 'quen' does not exist; this server has qwen, minilm, smol; did you mean 'qwen'?"
    assert (caught.value.message, caught.value.param) == (expected, "model")


def test_model_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        REGISTRY.chat("minilm")

    expected = "model 'minilm' is of kind 'embedding' and cannot chat; chat models here: qwen, smol"
    assert (caught.value.message, caught.value.param) == (expected, "model")
    assert caught.value.code == "model_kind_mismatch"


def test_request_without_a_name_gets_the_first_model_of_its_kind() -> None:
    assert REGISTRY.chat(None) == (CHAT.config, CHAT.model)
    assert REGISTRY.embedding(None) == (EMBED.config, EMBED.model)


def test_no_model_of_a_kind_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match="this server has no rerank model"):
        REGISTRY.rerank(None)


def test_rag_models_are_found_by_id_and_alias_and_do_nothing_but_chat() -> None:
    model = RagModel(id="handbook", chat_model="qwen", vector_stores=("manuals",), aliases=("docs",))
    registry = ModelRegistry([CHAT, EMBED], [model])

    assert registry.rag_model("handbook") is registry.rag_model("docs") is model
    assert registry.rag_model("qwen") is None
    with pytest.raises(ModelNotFound, match="this server has qwen, minilm, handbook; did you mean 'handbook'"):
        registry.chat("handbok")
    with pytest.raises(InvalidRequest, match=r"answers chats from vector stores, .* chat models here: qwen"):
        registry.chat("docs")


def test_entries_keep_their_order() -> None:
    assert [entry.config.id for entry in REGISTRY.entries] == ["qwen", "minilm", "smol"]


# ---- models that whoever asks may not know of


def test_what_is_not_allowed_does_not_exist() -> None:
    allowed: frozenset[str] | None = frozenset({"smol"})
    registry = ModelRegistry([CHAT, EMBED, OTHER], allowed=lambda: allowed)

    with pytest.raises(ModelNotFound, match=r"model 'gpt-4o' does not exist; this server has smol$"):
        registry.resolve("gpt-4o")
    with pytest.raises(ModelNotFound, match="no embedding model"):
        registry.embedding(None)
    assert registry.entries == (OTHER,)
    assert registry.chat(None) == (OTHER.config, OTHER.model)

    allowed = None
    assert registry.chat(None) == (CHAT.config, CHAT.model)


def test_a_rag_model_is_allowed_with_what_it_is_made_of() -> None:
    model = RagModel(id="handbook", chat_model="qwen", vector_stores=("manuals",))
    registry = ModelRegistry([CHAT, EMBED], [model], allowed=lambda: frozenset({"handbook"}))

    assert registry.chat_or_rag("handbook") == (CHAT.config, CHAT.model, model)
    with pytest.raises(ModelNotFound, match=r"this server has handbook$"):
        registry.chat_or_rag("qwen")


def test_a_rag_model_that_is_not_allowed_does_not_exist_either() -> None:
    model = RagModel(id="handbook", chat_model="qwen", vector_stores=("manuals",))
    registry = ModelRegistry([CHAT, EMBED], [model], allowed=lambda: frozenset({"qwen"}))

    assert registry.rag_model("handbook") is None
    with pytest.raises(ModelNotFound):
        registry.chat_or_rag("handbook")
    with pytest.raises(ModelNotFound):
        registry.embedding("handbook")


def test_the_server_itself_knows_everything() -> None:
    registry = ModelRegistry([CHAT, EMBED, OTHER], allowed=frozenset)

    assert registry.entries == ()
    assert registry.everything.entries == (CHAT, EMBED, OTHER)
