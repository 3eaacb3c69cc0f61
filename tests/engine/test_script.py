from __future__ import annotations

import pytest

from server.config.script_section import ScriptedError, ScriptedToolCall, ScriptRule
from server.engine.script import play, token_ids
from server.errors import InvalidRequest
from server.services.generation import Answer
from server.types import (
    ChatMessage,
    ChatPrompt,
    Delta,
    Failed,
    Finished,
    Prompt,
    Started,
    StreamEvent,
    TextPrompt,
    TokensPrompt,
    Tool,
    ToolCall,
    ToolUse,
)

ECHO = ScriptRule(text="you said {input}")
CHAT = ChatPrompt((ChatMessage(role="user", content="hello there"), ChatMessage(role="assistant", content="yes?")))


def events(
    *rules: ScriptRule, prompt: Prompt = CHAT, max_tokens: int | None = None, stop: tuple[str, ...] = ()
) -> list[StreamEvent]:
    return [step.event for step in play(rules, prompt, max_tokens=max_tokens, stop=stop)]


def text_of(said: list[StreamEvent]) -> str:
    return "".join(event.text for event in said if isinstance(event, Delta))


@pytest.mark.parametrize("prompt", [CHAT, TextPrompt("hello there")])
def test_a_rule_answers_the_last_user_message_or_the_raw_prompt(prompt: Prompt) -> None:
    assert text_of(events(ScriptRule(match="^goodbye"), ECHO, prompt=prompt)) == "you said hello there"


def test_what_a_tool_said_last_is_answered_so_that_agents_come_to_an_end() -> None:
    messages = (*CHAT.messages, ChatMessage(role="tool", content="sunny", tool_call_id="call_1"))

    assert text_of(events(ECHO, prompt=ChatPrompt(messages))) == "you said sunny"


@pytest.mark.parametrize(("prompt", "param"), [(CHAT, "messages"), (TextPrompt("hello"), "prompt")])
def test_no_matching_rule_blames_the_field_that_the_client_sent(prompt: Prompt, param: str) -> None:
    [failed] = events(ScriptRule(match="goodbye"), prompt=prompt)

    assert isinstance(failed, Failed)
    assert (failed.code, failed.param) == ("no_matching_rule", param)


def test_token_ids_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no vocabulary"):
        events(ECHO, prompt=TokensPrompt([1]))


def test_words_are_tokens() -> None:
    assert len(token_ids("one two  three")) == 3
    assert token_ids(CHAT) == token_ids("hello there") + token_ids("yes?")
    assert token_ids("a") != token_ids("b")


def test_max_tokens_cuts_and_says_so() -> None:
    said = events(ECHO, max_tokens=2)

    assert text_of(said) == "you said "
    assert isinstance(said[-1], Finished)
    assert (said[-1].reason, said[-1].usage.completion_tokens) == ("length", 2)


def test_a_stop_string_ends_the_text_before_it() -> None:
    said = events(ECHO, stop=("xyz", "hello"))

    assert text_of(said) == "you said "
    assert isinstance(said[-1], Finished) and said[-1].stop_text == "hello"


WEATHER = ScriptedToolCall(name="weather", arguments={"city": "Köln am Rhein"})


def offered(*names: str, is_parallel: bool = True) -> ChatPrompt:
    tools = tuple(Tool(name=name) for name in names)
    return ChatPrompt(CHAT.messages, ToolUse(tools=tools, names=names, is_parallel=is_parallel))


def calls_of(said: list[StreamEvent]) -> list[ToolCall]:
    answer = Answer()
    for event in said:
        if isinstance(event, Started | Delta | Finished):
            answer.add(event)
    return answer.tool_calls


def test_tool_calls_follow_the_text_in_pieces() -> None:
    said = events(ScriptRule(text="wait", tool_calls=(WEATHER, WEATHER)), prompt=offered("weather"))

    calls = calls_of(said)
    assert [(call.name, call.arguments) for call in calls] == [("weather", '{"city": "K\\u00f6ln am Rhein"}')] * 2
    assert calls[0].id != calls[1].id
    assert len([event for event in said if isinstance(event, Delta) and event.tool_calls]) == 10
    assert isinstance(said[-1], Finished)
    assert said[-1].reason == "tool_calls"


@pytest.mark.parametrize(
    ("prompt", "num_calls"),
    [(CHAT, 0), (offered("time"), 0), (TextPrompt("x"), 0), (offered("weather", is_parallel=False), 1)],
)
def test_only_what_the_request_offers_is_called(prompt: Prompt, num_calls: int) -> None:
    said = events(ScriptRule(text="x", tool_calls=(WEATHER, WEATHER)), prompt=prompt)

    assert len(calls_of(said)) == num_calls
    assert isinstance(said[-1], Finished)
    assert said[-1].reason == ("tool_calls" if num_calls else "stop")


def test_reasoning_comes_before_the_text() -> None:
    *said, finished = events(ScriptRule(reasoning="well then", text="yes"))

    assert said == [Delta(reasoning="well "), Delta(reasoning="then"), Delta("yes")]
    assert isinstance(finished, Finished)
    assert (finished.usage.completion_tokens, finished.usage.reasoning_tokens) == (3, 2)


def test_an_error_ends_the_answer_after_its_text() -> None:
    *_, ending = said = events(ScriptRule(text="so far", error=ScriptedError(code="overloaded", message="full")))

    assert text_of(said) == "so far"
    assert ending == Failed("overloaded", "full")
