"""Whom a chat request may offer tools to."""

from __future__ import annotations

import pytest

from server.config.schema import Capability, ModelConfig, ScriptRule
from server.errors import InvalidRequest
from server.models.registry import ModelEntry, ModelRegistry
from server.services.chat import ChatService
from server.services.generation import Generation
from tests.fakes.models import FakeChatModel

SCRIPT = ModelConfig(id="m", kind="chat", backend="script", script=(ScriptRule(text="x"),))
LLAMA = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:x.gguf")
WITH_TOOLS: tuple[Capability, ...] = ("chat", "tools")


def offer_tools(config: ModelConfig) -> Generation:
    service = ChatService(ModelRegistry([ModelEntry(config, FakeChatModel())]))
    return service.generate("m", (), sampling={}, uses_tools=True)


def test_a_script_with_the_capability_takes_tools() -> None:
    assert offer_tools(SCRIPT.model_copy(update={"capabilities": WITH_TOOLS})).model_id == "m"


@pytest.mark.parametrize("config", [SCRIPT, LLAMA, LLAMA.model_copy(update={"capabilities": WITH_TOOLS})])
def test_tools_are_refused_where_no_worker_would_hear_of_them(config: ModelConfig) -> None:
    with pytest.raises(InvalidRequest, match="cannot call tools") as refusal:
        offer_tools(config)

    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "tools")
