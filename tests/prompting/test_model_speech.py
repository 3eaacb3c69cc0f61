"""What is made of a template: how its model calls tools, and what it has to be told."""

from __future__ import annotations

import pytest

from server.prompting.answers.deepseek import DEEPSEEK
from server.prompting.answers.hermes import HERMES
from server.prompting.answers.mistral import MISTRAL_LIST
from server.prompting.answers.qwen_xml import QWEN_XML
from server.prompting.answers.thoughts import THINK, ThoughtTags
from server.prompting.answers.tool_format import ToolFormat
from server.prompting.model_speech import ModelSpeech, speech_of
from tests.prompting.test_template_tools import CHATML, source_of, template

UNKNOWN = (
    "{% for t in tools %}{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}{% for c in m.tool_calls %}<call>{{ c.function.arguments }}</call>{% endfor %}{% endfor %}"
)


def speech(source: str, *, tools: str = "auto", reasoning: str = "auto") -> ModelSpeech:
    return speech_of(source, template(source).abilities, tool_format=tools, reasoning_format=reasoning)


@pytest.mark.parametrize(
    ("source", "tools", "thoughts", "is_told", "is_spelled"),
    [
        (source_of("qwen3"), HERMES, THINK, False, False),
        (source_of("qwen3-coder"), QWEN_XML, None, False, False),
        (source_of("mistral-nemo"), MISTRAL_LIST, None, False, False),
        (source_of("deepseek-v3.1"), DEEPSEEK, THINK, True, False),
        (CHATML, HERMES, None, True, True),
        (UNKNOWN, HERMES, None, True, True),
    ],
    ids=["qwen3", "qwen3-coder", "mistral", "tells of no tools", "knows no tools", "has a way that nobody knows"],
)
def test_a_model_is_told_what_its_template_does_not(
    source: str, tools: ToolFormat, thoughts: ThoughtTags | None, *, is_told: bool, is_spelled: bool
) -> None:
    assert speech(source) == ModelSpeech(tools, thoughts, needs_instructions=is_told, needs_spelling=is_spelled)


def test_formats_can_be_given_by_name() -> None:
    assert speech(CHATML, tools="qwen_xml", reasoning="think") == ModelSpeech(
        QWEN_XML, THINK, needs_instructions=True, needs_spelling=True
    )
    assert speech(source_of("qwen3"), reasoning="none").thoughts is None
    assert speech(source_of("qwen3"), tools="hermes").needs_instructions is False
