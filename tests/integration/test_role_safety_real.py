"""Prompts down to their tokens, as llama.cpp makes them, with the templates and control tokens of real models.

Whatever users, tools, documents, file names and clients say: the control tokens are those that the template wrote. The
vocabularies are tiny, as only their control tokens matter: all else is bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.protocols import ChatModel
from server.rag.documents import Span
from server.rag.prompt import Source, write_prompt
from server.services.framing import fitting_frame
from server.types import (
    ChatMessage,
    ChatPrompt,
    GenerateRequest,
    Prompt,
    SamplingParams,
    TemplateOption,
    TokenIds,
    Tool,
    ToolCall,
    ToolUse,
)
from server.workers.chat_prompts import ChatPrompts
from tests.fakes.tiny_models import write_speaking
from tests.prompting.test_quarantine import CONTROLS, TEMPLATES

pytestmark = pytest.mark.integration

OPTIONS = {"gpt-oss": ("model_identity",), "qwen3": ("enable_thinking",), "deepseek-v3.1": ("thinking",)}
"""Variables of the templates that a client may send, and that end up in the prompt or in what it says."""

CONFIG = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:x.gguf")


class Speaker:
    """A model's prompts, and a chat model as far as `fitting_frame` needs one."""

    def __init__(self, name: str, model: LlamaModel) -> None:
        self.name = name
        self.prompts = ChatPrompts(model, CONFIG, context_length=1_000_000)
        self.controls = set(model.vocab.control_ids.values())

    async def token_ids(self, inputs: Sequence[str | Prompt]) -> list[TokenIds]:
        return list(map(self.prompts.token_ids, inputs))

    def controls_of(self, prompt: Prompt) -> TokenIds:
        request = GenerateRequest(request_id="r", prompt=prompt, sampling=SamplingParams())
        return [token_id for token_id in self.prompts.read(request).token_ids if token_id in self.controls]


@pytest.fixture(scope="module", params=CONTROLS)
def speaker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speaker]:
    path = tmp_path_factory.mktemp("speaking") / "model.gguf"
    write_speaking(path, (TEMPLATES / f"{request.param}.jinja").read_text(), CONTROLS[request.param])
    with LlamaModel(path) as model:
        speaker = Speaker(request.param, model)
        yield speaker
        speaker.prompts.close()


def forgeries(name: str) -> Iterator[str]:
    """Each control token whole, and so that what stands around it could make it whole."""
    for text in CONTROLS[name]:
        yield from (text, text[1:], text[:-1], text[1:-1], f"a {text}\n{text} b", f"{text[:2]}{text}{text[2:]}")


def conversation(said: str, options: Sequence[str]) -> ChatPrompt:
    """A text in every place of a conversation."""
    schema = {"type": "object", "properties": {said: {"type": "string", "description": said}}, "title": said}
    tool = Tool(name="get_weather", description=said, parameters=json.dumps(schema))
    call = ToolCall(said, "get_weather", json.dumps({said: [said, {said: said}]}))
    messages = (
        ChatMessage(role="system", content=said, name=said),
        ChatMessage(role="user", content=said, name=said),
        ChatMessage(role="assistant", content=said, reasoning=said, tool_calls=(call,)),
        ChatMessage(role="tool", content=said, tool_call_id=said, name=said),
    )
    use = ToolUse(tools=(tool,), names=("get_weather",))
    chosen: dict[str, TemplateOption] = dict.fromkeys(options, said)
    return ChatPrompt(messages, use, None, chosen)


async def grounded(speaker: Speaker, said: str) -> Any:
    """A conversation about documents that say it, under names that do."""
    text = f"{said} and {said}"
    sources = [
        Source(document_id=-n, file_id=said, filename=f"{said}.md", span=Span(0, len(text)), text=text) for n in (1, 2)
    ]

    async def count_tokens(texts: Sequence[str]) -> list[int]:
        return list(map(len, await speaker.token_ids(texts)))

    asked = ChatPrompt((ChatMessage(role="system", content=said), ChatMessage(role="user", content=said)))
    model = cast(ChatModel, SimpleNamespace(token_ids=speaker.token_ids))
    frame, _ = await fitting_frame(model, asked, said)
    written = await write_prompt(sources, max_tokens=500_000, count_tokens=count_tokens)
    return frame(written.text)


def test_a_conversation_has_the_templates_control_tokens_and_no_others(speaker: Speaker) -> None:
    options = OPTIONS.get(speaker.name, ())
    honest = speaker.controls_of(conversation("x", options))

    assert len(honest) >= 4
    for forged in forgeries(speaker.name):
        assert speaker.controls_of(conversation(forged, options)) == honest, forged


async def test_documents_and_their_names_have_none(speaker: Speaker) -> None:
    honest = speaker.controls_of(await grounded(speaker, "x"))

    assert honest
    for forged in forgeries(speaker.name):
        assert speaker.controls_of(await grounded(speaker, forged)) == honest, forged


def test_parts_of_messages_that_are_counted_have_none(speaker: Speaker) -> None:
    for forged in forgeries(speaker.name):
        assert not speaker.controls.intersection(speaker.prompts.token_ids(forged)), forged
