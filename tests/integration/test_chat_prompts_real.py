"""Prompts with tools for the default chat model, whose template knows none, down to its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.errors import InvalidRequest
from server.types import (
    ChatMessage,
    ChatPrompt,
    GenerateRequest,
    ReasoningEffort,
    SamplingParams,
    TemplateOption,
    Tool,
    ToolCall,
    ToolUse,
)
from server.workers.chat_prompts import ChatPrompts
from tests.integration.live_models import CHAT, REPOSITORY

pytestmark = pytest.mark.integration

CONFIG = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:x.gguf")


@pytest.fixture(scope="module")
def model(live_config: Path) -> Iterator[LlamaModel]:
    [path] = (REPOSITORY / "weights" / CHAT).glob("*.gguf")
    with LlamaModel(path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def prompts(model: LlamaModel) -> Iterator[ChatPrompts]:
    reading = ChatPrompts(model, CONFIG, context_length=8192)
    yield reading
    reading.close()


def conversation(
    said: str, *, effort: ReasoningEffort | None = None, options: dict[str, TemplateOption] | None = None
) -> GenerateRequest:
    """A text of a user, a tool and a client in every place where there can be one."""
    schema = {"type": "object", "properties": {said: {"type": "string", "description": said}}, "title": said}
    tool = Tool(name="get_weather", description=said, parameters=json.dumps(schema))
    call = ToolCall(said, "get_weather", json.dumps({said: [said]}))
    messages = (
        ChatMessage(role="system", content=said),
        ChatMessage(role="user", content=said, name=said),
        ChatMessage(role="assistant", content=said, reasoning=said, tool_calls=(call,)),
        ChatMessage(role="tool", content=said, tool_call_id=said, name=said),
    )
    use = ToolUse(tools=(tool,), names=("get_weather",))
    prompt = ChatPrompt(messages, use, effort, options or {})
    return GenerateRequest(request_id="r", prompt=prompt, sampling=SamplingParams())


def text_of(model: LlamaModel, token_ids: list[int]) -> str:
    """With control tokens spelled out."""
    pieces = model.vocab.pieces_with(model.vocab.control_texts)
    return b"".join(pieces[token_id] for token_id in token_ids).decode()


def test_the_model_is_told_of_tools_and_shown_calls_and_results(model: LlamaModel, prompts: ChatPrompts) -> None:
    text = text_of(model, prompts.read(conversation("Oslo")).token_ids)

    assert text.startswith("<|im_start|>system\nOslo\n\n# Tools")
    assert '"name": "get_weather", "description": "Oslo"' in text
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"Oslo": ["Oslo"]}}\n</tool_call><|im_end|>' in text
    assert text.endswith("<|im_start|>user\n<tool_response>\nOslo\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


def test_no_control_token_comes_from_a_user_a_tool_or_a_schema(model: LlamaModel, prompts: ChatPrompts) -> None:
    controls = set(model.vocab.control_ids.values())

    def controls_of(said: str) -> list[int]:
        return [token_id for token_id in prompts.read(conversation(said)).token_ids if token_id in controls]

    honest = controls_of("x")
    for text in model.vocab.control_texts:
        for forged in (text, text[1:], text[:-1], text[1:-1], f"a {text}\n{text} b"):
            assert controls_of(forged) == honest, forged


def test_pieces_show_the_control_tokens_that_a_reader_wants(model: LlamaModel) -> None:
    vocab = model.vocab
    shown = vocab.pieces_with(["<|im_end|>", "<unknown>"])

    end_id = vocab.control_ids["<|im_end|>"]
    assert (vocab.pieces[end_id], shown[end_id]) == (b"", b"<|im_end|>")
    assert [token_id for token_id in range(vocab.size) if shown[token_id] != vocab.pieces[token_id]] == [end_id]


def test_what_the_template_does_not_read_is_refused_by_name(prompts: ChatPrompts) -> None:
    with pytest.raises(InvalidRequest, match="reads no 'enable_thinking'") as refusal:
        prompts.read(conversation("x", options={"enable_thinking": False}))
    assert refusal.value.param == "chat_template_kwargs.enable_thinking"
    with pytest.raises(InvalidRequest, match="not supported by this model"):
        prompts.read(conversation("x", effort="high"))
