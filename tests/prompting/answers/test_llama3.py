"""Answers as Llama 3 writes them."""

from __future__ import annotations

import pytest

from server.prompting.answers.llama3 import LLAMA3
from tests.fakes.spoken import Spoken, read, reader_of

OSLO = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
CALL = ("get_weather", '{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (OSLO, [CALL]),
        (f"\n {OSLO}\n", [CALL]),
        (f"<|python_tag|>{OSLO}", [CALL]),
        ('{"type": "function", "name": "get_weather", "parameters": {"city": "Oslo"}}', [CALL]),
        (f"{OSLO}; {OSLO}", [CALL, CALL]),
        (f"{OSLO}\n{OSLO}", [CALL, CALL]),
    ],
)
def test_an_answer_that_begins_with_a_call_is_calls(text: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, LLAMA3) == Spoken("", "", calls)


@pytest.mark.parametrize(
    "text",
    [
        "It is cold.",
        f"Call it so: {OSLO}",
        '{"temperature": -3}',
        '{"name": "Ann", "parameters": {}}',
        '{"name": "get_weather", "parameters": {"city": "Os',
        '<|python_tag|>brave_search.call(query="Oslo")',
        "{",
    ],
)
def test_any_other_answer_is_content(text: str) -> None:
    assert read(text, LLAMA3) == Spoken(text)


def test_an_answer_in_json_is_not_held_back() -> None:
    delta = reader_of(LLAMA3).push('{"temperature": -3')

    assert delta is not None
    assert delta.text == '{"temperature": -3'
