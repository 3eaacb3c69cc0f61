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
    with pytest.raises(ModelNotFound, match="this server has no rerank model; it has qwen, minilm, smol"):
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
