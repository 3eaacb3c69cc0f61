"""Answers as Qwen 2.5, Qwen 3 and Hermes write them."""

from __future__ import annotations

import pytest

from server.prompting.answers.hermes import HERMES
from server.prompting.answers.thoughts import THINK
from tests.fakes.spoken import Spoken, hear, read, reader_of

OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
CALL = ("get_weather", '{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"<tool_call>\n{OSLO}\n</tool_call>", "", [CALL]),
        (f"I will look.\n\n<tool_call>\n{OSLO}\n</tool_call>", "I will look.", [CALL]),
        (f"<tool_call>\n{OSLO}\n</tool_call>\n<tool_call>\n{OSLO}\n</tool_call>\n", "", [CALL, CALL]),
        (f"<tool_call>{OSLO}</tool_call> Done.", "Done.", [CALL]),
        (f"<tool_call>[{OSLO}, {OSLO}]</tool_call>", "", [CALL, CALL]),
        (f"<tool_call>{OSLO}\n{OSLO}</tool_call>", "", [CALL, CALL]),
        (f"<tool_call>\n{OSLO}", "", [CALL]),
        ('<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>', "", [CALL]),
        ('<tool_call>{"name": "get_weather", "parameters": {"city": "Oslo"}}</tool_call>', "", [CALL]),
        ('<tool_call>{"id": 1, "name": "get_time"}</tool_call>', "", [("get_time", "{}")]),
        ('<tool_call>{"name": "get_time", "arguments": null}</tool_call>', "", [("get_time", "{}")]),
        ('<tool_call>{"name": "get_time", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("get_time", '{"a": 1}')]),
        (
            '<tool_call>{"name": "get_time", "arguments": {"code": "a\n</tool_call>"}}</tool_call>',
            "",
            [("get_time", '{"code": "a\\n</tool_call>"}')],
        ),
        ("No tool fits.\n", "No tool fits.\n", []),
    ],
)
def test_calls_are_found(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert read(text, HERMES) == Spoken(content, "", calls)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "launch_missiles", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": Oslo}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Os',
        '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": "Oslo"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>get_weather(city='Oslo')</tool_call>",
        "Write <tool_call> and </tool_call> around it.",
        "<tool_call>",
        "<tool_",
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, HERMES) == Spoken(text)


def test_a_broken_call_does_not_hide_the_next_one() -> None:
    spoken = read(f'<tool_call>{{"name": <tool_call>{OSLO}</tool_call>', HERMES)

    assert spoken == Spoken('<tool_call>{"name":', "", [CALL])


def test_a_call_is_delivered_when_it_is_whole() -> None:
    reader = reader_of(HERMES)

    assert reader.push('<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"') is None
    delta = reader.push("}}")
    assert delta is not None
    assert [(call.index, call.name, call.arguments) for call in delta.tool_calls] == [(0, *CALL)]


def test_a_call_that_is_sure_is_delivered_as_it_comes() -> None:
    reader = reader_of(HERMES, trusts_calls=True)
    reader.push("<tool_call>\n")
    deltas = [reader.push(piece) for piece in ('{"name": "get_weather"', ', "arguments": {"ci', 'ty": "Os', 'lo"}}')]

    heard = [delta.tool_calls[0] for delta in deltas if delta]
    assert [(call.name, call.arguments) for call in heard] == [
        ("get_weather", ""),
        ("", '{"ci'),
        ("", 'ty": "Os'),
        ("", 'lo"}'),
    ]
    assert len({call.id for call in heard if call.id}) == 1


def test_a_sure_call_that_is_cut_stays_as_it_was_heard() -> None:
    spoken = read('<tool_call>{"name": "get_weather", "arguments": {"city": "Os', HERMES, trusts_calls=True)

    assert spoken == Spoken("", "", [("get_weather", '{"city": "Os')])


def test_nothing_is_said_behind_the_last_call_that_is_allowed() -> None:
    reader = reader_of(HERMES, max_calls=1)

    assert hear(reader, [f"<tool_call>{OSLO}</tool_call><tool_call>{OSLO}</tool_call>more"]) == Spoken("", "", [CALL])
    assert reader.is_full


def test_a_call_behind_reasoning() -> None:
    text = f"<think>\nMaybe <tool_call>?\n</think>\n\n<tool_call>\n{OSLO}\n</tool_call>"

    assert read(text, HERMES, thoughts=THINK) == Spoken("", "Maybe <tool_call>?", [CALL])
