"""Answers as Gemma 4 and FunctionGemma write them."""

from __future__ import annotations

import pytest

from server.prompting.answers.gemma import FUNCTION_GEMMA, GEMMA
from server.prompting.answers.thoughts import GEMMA as THOUGHTS
from tests.fakes.spoken import Spoken, read

Q = '<|"|>'
OSLO = f"<|tool_call>call:get_weather{{city:{Q}Oslo{Q}}}<tool_call|>"
CALL = ("get_weather", '{"city":"Oslo"}')


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (OSLO, "", [CALL]),
        (f"Let me see.{OSLO}{OSLO}", "Let me see.", [CALL, CALL]),
        (
            f"<|tool_call>call:get_time{{a:-1.5e3,b:[true,null,{{c:{Q}d{Q}}}],e:{{}}}}<tool_call|>",
            "",
            [("get_time", "")],
        ),
        ("<|tool_call>call:get_time{}<tool_call|>", "", [("get_time", "{}")]),
        ('<|tool_call>call:get_time{"a": "b"}<tool_call|>', "", [("get_time", '{"a": "b"}')]),
    ],
)
def test_calls_are_found(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    if calls[-1] == ("get_time", ""):
        calls = [("get_time", '{"a":-1.5e3,"b":[true,null,{"c":"d"}],"e":{}}')]
    assert read(text, GEMMA) == Spoken(content, "", calls)


def test_function_gemma_has_tokens_of_its_own() -> None:
    text = "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>"

    assert read(text, FUNCTION_GEMMA) == Spoken("", "", [CALL])


@pytest.mark.parametrize(
    "text",
    [
        "<|tool_call>call:sing{}<tool_call|>",
        f"<|tool_call>call:get_weather{{city:{Q}Oslo",
        "<|tool_call>call:get_weather{city:Oslo}<tool_call|>",
        "<|tool_call>get_weather",
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, GEMMA) == Spoken(text)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<|channel>thought\nI am\nthinking<channel|>Hello.", Spoken("Hello.", "I am\nthinking")),
        ("<|channel>thought<channel|>Hello.", Spoken("Hello.")),
        ("<|channel><|channel>thought\n<channel|>Hello.", Spoken("Hello.")),
        ("<|channel>thought\n<channel|>Hello.<|channel>thought\nmore<channel|><channel|>", Spoken("Hello.", "more")),
        (f"<|channel>thought\nHm<channel|>{OSLO}", Spoken("", "Hm", [CALL])),
    ],
)
def test_thoughts_may_stand_anywhere(text: str, spoken: Spoken) -> None:
    assert read(text, GEMMA, thoughts=THOUGHTS) == spoken
