"""Which format a template tells of."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from server.config.schema import ReasoningFormatName, ToolFormatName
from server.prompting.answers.known_formats import (
    REASONING_FORMATS,
    TOOL_FORMATS,
    detect_reasoning_format,
    detect_tool_format,
)

TEMPLATES = Path(__file__).parents[2] / "data/chat_templates"


@pytest.mark.parametrize(
    ("name", "tools", "reasoning"),
    [
        ("qwen3", "hermes", "think"),
        ("qwen3-coder", "qwen_xml", "none"),
        ("mistral-nemo", "mistral_list", "none"),
        ("deepseek-v3.1", "deepseek", "think"),
        ("gpt-oss", "harmony", "none"),
    ],
)
def test_real_templates_are_recognised(name: str, tools: str, reasoning: str) -> None:
    source = (TEMPLATES / f"{name}.jinja").read_text()

    assert (detect_tool_format(source), detect_reasoning_format(source)) == (tools, reasoning)


@pytest.mark.parametrize(
    ("source", "tools"),
    [
        ("'[TOOL_CALLS]' + name + '[ARGS]' + arguments", "mistral"),
        ("'<|tool_call>call:' + name", "gemma"),
        ("'<start_function_call>call:' + name", "function_gemma"),
        ("'<｜tool▁calls▁begin｜>' + '```json'", "deepseek_r1"),
        ("""'<|start_header_id|>ipython' + '"parameters": '""", "llama3"),
        ("<tool_call>{name}\n<arg_key>{key}</arg_key>", None),
        ("<tool_call><invoke name=", None),
        ("'<|im_start|>' + message.role", None),
    ],
)
def test_signs_of_a_format(source: str, tools: str | None) -> None:
    assert detect_tool_format(source) == tools


@pytest.mark.parametrize(
    ("source", "reasoning"),
    [("<|channel>thought <channel|>", "gemma"), ("[THINK] [/THINK]", "mistral"), ("'</think>'", "think"), ("", "none")],
)
def test_signs_of_reasoning(source: str, reasoning: str) -> None:
    assert detect_reasoning_format(source) == reasoning


def test_the_configuration_knows_them_all() -> None:
    assert set(get_args(ToolFormatName)) == set(TOOL_FORMATS)
    assert {*get_args(ReasoningFormatName), "none"} == set(REASONING_FORMATS)
