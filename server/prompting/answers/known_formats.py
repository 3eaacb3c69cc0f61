"""Which formats a model writes, told from its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.prompting.answers import thoughts
from server.prompting.answers.deepseek import DEEPSEEK, DEEPSEEK_R1
from server.prompting.answers.gemma import FUNCTION_GEMMA, GEMMA
from server.prompting.answers.harmony import HARMONY
from server.prompting.answers.hermes import HERMES
from server.prompting.answers.llama3 import LLAMA3
from server.prompting.answers.mistral import MISTRAL, MISTRAL_LIST
from server.prompting.answers.qwen_xml import QWEN_XML
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import ToolFormat

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "hermes": HERMES,
    "qwen_xml": QWEN_XML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "mistral_list": MISTRAL_LIST,
    "gemma": GEMMA,
    "function_gemma": FUNCTION_GEMMA,
    "deepseek": DEEPSEEK,
    "deepseek_r1": DEEPSEEK_R1,
    "harmony": HARMONY,
}
"""By their names in models.yaml."""

REASONING_FORMATS: Mapping[str, ThoughtTags | None] = {
    "think": thoughts.THINK,
    "mistral": thoughts.MISTRAL,
    "gemma": thoughts.GEMMA,
    "none": None,
}


@dataclass(frozen=True)
class _Signs:
    """What a template has if its model writes a format; `strangers` are of others that look like it."""

    all: tuple[str, ...]
    strangers: tuple[str, ...] = ()

    def are_in(self, source: str) -> bool:
        return all(sign in source for sign in self.all) and not any(sign in source for sign in self.strangers)


_TOOL_SIGNS: Mapping[str, _Signs] = {
    "harmony": _Signs(("<|channel|>", "<|message|>")),
    "gemma": _Signs(("<|tool_call>call:",)),
    "function_gemma": _Signs(("<start_function_call>",)),
    "mistral": _Signs(("[TOOL_CALLS]", "[ARGS]")),
    "mistral_list": _Signs(("[TOOL_CALLS]",)),
    "deepseek_r1": _Signs(("<｜tool▁calls▁begin｜>", "```json")),
    "deepseek": _Signs(("<｜tool▁calls▁begin｜>",)),
    "qwen_xml": _Signs(("<tool_call>", "<function=", "<parameter=")),
    "hermes": _Signs(("<tool_call>", '"arguments'), ("<arg_key>", "<invoke", "<|tool_call>")),
    "llama3": _Signs(("<|start_header_id|>", '"parameters": ', "ipython"), ("<function=",)),
}
"""In the order of looking: the first that fits is it. Their names are those of `TOOL_FORMATS`."""

_REASONING_SIGNS: Mapping[str, _Signs] = {
    "gemma": _Signs(("<|channel>thought", "<channel|>")),
    "mistral": _Signs(("[THINK]", "[/THINK]")),
    "think": _Signs(("</think>",)),
}


def detect_tool_format(source: str) -> str | None:
    """The name of the format that a template has its model write calls in; None if it is not known here."""
    return next((name for name, signs in _TOOL_SIGNS.items() if signs.are_in(source)), None)


def detect_reasoning_format(source: str) -> str:
    return next((name for name, signs in _REASONING_SIGNS.items() if signs.are_in(source)), "none")
