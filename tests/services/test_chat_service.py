"""What a chat request may ask of whom, and what RAG models make of a request."""

from __future__ import annotations

import pytest

from server.config.rag_section import RagModel, RagSettings
from server.config.schema import ModelConfig
from server.config.script_section import ScriptRule
from server.errors import InvalidRequest
from server.models.registry import ModelEntry, ModelRegistry
from server.services.chat import ChatService
from server.services.grounded_chat import GroundedChat
from server.services.grounding import Grounding
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels
from server.services.vector_stores import VectorStoreService
from server.types import ChatMessage, ChatPrompt, Grammar, Tool, ToolUse
from tests.fakes.models import FakeChatModel

SCRIPT = ModelConfig(id="m", kind="chat", backend="script", script=(ScriptRule(text="x"),))
LLAMA = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:x.gguf")
PROMPT = ChatPrompt((ChatMessage(role="user", content="Hi"),), ToolUse(tools=(Tool(name="f"),), names=("f",)))


def service(registry: ModelRegistry) -> ChatService:
    models = StoreModels(registry, RagSettings())
    return ChatService(registry, GroundedChat(VectorStoreService(LibraryDoor(), models), models, RagSettings()))


@pytest.mark.parametrize("config", [SCRIPT, LLAMA])
async def test_every_chat_model_takes_tools(config: ModelConfig) -> None:
    model = FakeChatModel()

    generation = service(ModelRegistry([ModelEntry(config, model)])).generate("m", PROMPT, sampling={})
    _ = [event async for event in generation.events]

    assert model.requests[0].prompt == PROMPT


def test_a_script_follows_no_grammar() -> None:
    chats = service(ModelRegistry([ModelEntry(SCRIPT, FakeChatModel())]))

    with pytest.raises(InvalidRequest, match=r"written in models\.yaml") as refusal:
        chats.generate("m", PROMPT, sampling={}, grammar=Grammar("regex", "a", "grammar"))

    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "grammar")


def test_a_rag_model_does_not_search_what_a_request_names() -> None:
    rag_model = RagModel(id="handbook", chat_model="m", vector_stores=("manuals",))
    registry = ModelRegistry([ModelEntry(LLAMA, FakeChatModel())], [rag_model])

    with pytest.raises(InvalidRequest, match="leave the tool 'file_search' out, or use model 'm'") as refusal:
        service(registry).generate("handbook", PROMPT, sampling={}, grounding=Grounding(store_ids=("vs_1",)))

    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "tools")
    assert service(registry).generate("handbook", PROMPT, sampling={}).model_id == "handbook"
