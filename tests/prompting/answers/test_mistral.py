"""Answers as Mistral's models write them, old and new."""

from __future__ import annotations

import pytest

from server.prompting.answers.mistral import MISTRAL, MISTRAL_LIST
from server.prompting.answers.thoughts import MISTRAL as THOUGHTS
from server.prompting.answers.tool_format import ToolFormat
from tests.fakes.spoken import Spoken, read

CALL = ("get_weather", '{"city": "Oslo"}')
TIME = ("get_time", '{"zone": "UTC"}')
OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "a1b2c3d4e"}'


@pytest.mark.parametrize("tools", [MISTRAL, MISTRAL_LIST], ids=["new", "old"])
@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"[TOOL_CALLS][{OSLO}]", "", [CALL]),
        (f"[TOOL_CALLS] [{OSLO}, {OSLO}]", "", [CALL, CALL]),
        (f"[TOOL_CALLS]{OSLO}", "", [CALL]),
        (f"[TOOL_CALLS][{OSLO}", "", [CALL]),
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}', "", [CALL]),
        ('[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Oslo"}', "", [CALL]),
        ('[TOOL_CALLS]get_weather{"city": "Oslo"}', "", [CALL]),
        (
            'Look.[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]get_time[ARGS]{"zone": "UTC"}',
            "Look.",
            [CALL, TIME],
        ),
    ],
)
def test_calls_are_found(tools: ToolFormat, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, tools) == Spoken(content, "", calls)


@pytest.mark.parametrize(
    "text", ["[TOOL_CALLS]", "[TOOL_CALLS]sing[ARGS]{}", "[TOOL_CALLS][{}]", '[TOOL_CALLS]get_time[ARGS]{"a', "[TOOL_"]
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, MISTRAL) == Spoken(text)


def test_a_call_behind_reasoning() -> None:
    text = '[THINK]It says [TOOL_CALLS]get_time[ARGS]{}[/THINK][TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}'

    assert read(text, MISTRAL, thoughts=THOUGHTS) == Spoken("", "It says [TOOL_CALLS]get_time[ARGS]{}", [CALL])
