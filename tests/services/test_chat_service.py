"""What a chat request may ask of whom."""

from __future__ import annotations

import pytest

from server.config.schema import ModelConfig, ScriptRule
from server.errors import InvalidRequest
from server.models.registry import ModelEntry, ModelRegistry
from server.services.chat import ChatService
from server.types import ChatMessage, ChatPrompt, Grammar, Tool, ToolUse
from tests.fakes.models import FakeChatModel

SCRIPT = ModelConfig(id="m", kind="chat", backend="script", script=(ScriptRule(text="x"),))
LLAMA = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:x.gguf")
PROMPT = ChatPrompt((ChatMessage(role="user", content="Hi"),), ToolUse(tools=(Tool(name="f"),), names=("f",)))


@pytest.mark.parametrize("config", [SCRIPT, LLAMA])
async def test_every_chat_model_takes_tools(config: ModelConfig) -> None:
    model = FakeChatModel()

    generation = ChatService(ModelRegistry([ModelEntry(config, model)])).generate("m", PROMPT, sampling={})
    _ = [event async for event in generation.events]

    assert model.requests[0].prompt == PROMPT


def test_a_script_follows_no_grammar() -> None:
    service = ChatService(ModelRegistry([ModelEntry(SCRIPT, FakeChatModel())]))

    with pytest.raises(InvalidRequest, match=r"written in models\.yaml") as refusal:
        service.generate("m", PROMPT, sampling={}, grammar=Grammar("regex", "a", "grammar"))

    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "grammar")
