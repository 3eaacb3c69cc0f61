"""Answers as DeepSeek V3.1, V3 and R1 write them."""

from __future__ import annotations

import pytest

from server.prompting.answers.deepseek import DEEPSEEK, DEEPSEEK_R1
from server.prompting.answers.thoughts import THINK
from server.prompting.answers.tool_format import ToolFormat
from tests.fakes.spoken import Spoken, read

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
NEW = '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>'
OLD = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>'
CALL = ("get_weather", '{"city": "Oslo"}')


@pytest.mark.parametrize("tools", [DEEPSEEK, DEEPSEEK_R1], ids=["new", "old"])
@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"{BEGIN}{NEW}{END}", "", [CALL]),
        (f"{BEGIN}{OLD}{END}", "", [CALL]),
        (f"Let me see.\n{BEGIN}{NEW}{NEW}{END}", "Let me see.", [CALL, CALL]),
        (f"{BEGIN}{OLD}\n{OLD}{END}", "", [CALL, CALL]),
        (f"{BEGIN}{NEW}", "", [CALL]),
        (f"{NEW}", "", [CALL]),
        ("It is cold.", "It is cold.", []),
    ],
)
def test_calls_are_found(tools: ToolFormat, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, tools) == Spoken(content, "", calls)


@pytest.mark.parametrize(
    "text",
    [
        f"{BEGIN}no{END}",
        f"{BEGIN}{NEW.replace('get_weather', 'sing')}{END}",
        f"{BEGIN}<｜tool▁call▁begin｜>get_weather",
        f'{BEGIN}<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{{"city": <',
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, DEEPSEEK) == Spoken(text)


def test_reasoning_that_the_prompt_has_begun() -> None:
    spoken = read(f"I am\nthinking</think>\nHello.{BEGIN}{NEW}{END}", DEEPSEEK, thoughts=THINK, is_thinking=True)

    assert spoken == Spoken("Hello.", "I am\nthinking", [CALL])
