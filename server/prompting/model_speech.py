"""What a model's answers are made of, and what it has to be told because its template does not."""

from __future__ import annotations

from dataclasses import dataclass

from server.prompting.answers.hermes import HERMES
from server.prompting.answers.known_formats import (
    REASONING_FORMATS,
    TOOL_FORMATS,
    detect_reasoning_format,
    detect_tool_format,
)
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import ToolFormat
from server.prompting.chat_template import TemplateAbilities

AUTO = "auto"


@dataclass(frozen=True)
class ModelSpeech:
    """How one model calls tools and thinks.

    Attributes:
        needs_instructions: It must be told of the tools in words.
        needs_spelling: Earlier calls and their results must be written as text.
    """

    tools: ToolFormat
    thoughts: ThoughtTags | None
    needs_instructions: bool
    needs_spelling: bool


def speech_of(source: str, abilities: TemplateAbilities, *, tool_format: str, reasoning_format: str) -> ModelSpeech:
    """Tell from a template, unless the formats are given by name, how its model speaks.

    A model whose template shows no calls, or shows them in a way that is not known here, is taught Hermes' way.
    """
    name = detect_tool_format(source) if tool_format == AUTO else tool_format
    is_known = name is not None and (abilities.takes_calls or tool_format != AUTO)
    return ModelSpeech(
        TOOL_FORMATS[name] if name and is_known else HERMES,
        REASONING_FORMATS[detect_reasoning_format(source) if reasoning_format == AUTO else reasoning_format],
        needs_instructions=not (is_known and abilities.takes_tools),
        needs_spelling=not (is_known and abilities.takes_calls),
    )
