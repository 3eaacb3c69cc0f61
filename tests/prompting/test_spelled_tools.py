"""Tools for models that were made for none."""

from __future__ import annotations

from server.prompting.answers.hermes import HERMES
from server.prompting.spelled_tools import spell_calls, write_instructions
from server.types import ChatMessage, ToolCall
from tests.fakes.spoken import Spoken, read


def user(content: str) -> ChatMessage:
    return ChatMessage(role="user", content=content)


def test_instructions_name_the_tools_and_show_a_call() -> None:
    text = write_instructions(['{"name": "f"}', '{"name": "g"}'], HERMES.frame)

    assert '<tools>\n{"name": "f"}\n{"name": "g"}\n</tools>' in text
    assert text.endswith('<tool_call>\n{"name": "<function-name>", "arguments": <args-json-object>}\n</tool_call>')


def test_calls_and_their_results_become_text_in_turns() -> None:
    calls = (ToolCall("1", "get_time", '{"zone": "UTC"}'), ToolCall("2", "get_time", "{}"))
    said = [
        user("When?"),
        ChatMessage(role="assistant", content="I look.", tool_calls=calls),
        ChatMessage(role="tool", content="12:00", tool_call_id="1"),
        ChatMessage(role="tool", content="13:00", tool_call_id="2"),
        ChatMessage(role="assistant", content="Noon."),
    ]

    asked, called, results, answered = spell_calls(said, HERMES.frame)

    assert (asked, answered) == (said[0], said[-1])
    assert read(called.content, HERMES) == Spoken("I look.", "", [("get_time", '{"zone": "UTC"}'), ("get_time", "{}")])
    assert results == user("<tool_response>\n12:00\n</tool_response>\n<tool_response>\n13:00\n</tool_response>")


def test_a_conversation_without_tools_stays_as_it_is() -> None:
    said = [user("Hi"), ChatMessage(role="assistant", content="Hello")]

    assert spell_calls(said, HERMES.frame) == said
