from __future__ import annotations

import pytest

from server.config.schema import ScriptedError, ScriptedToolCall, ScriptRule
from server.engine.script import play
from server.errors import InvalidRequest
from server.types import ChatMessage, ChatPrompt, Delta, Failed, Finished, Prompt, StreamEvent, TextPrompt, TokensPrompt

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


@pytest.mark.parametrize(("prompt", "param"), [(CHAT, "messages"), (TextPrompt("hello"), "prompt")])
def test_no_matching_rule_blames_the_field_that_the_client_sent(prompt: Prompt, param: str) -> None:
    [failed] = events(ScriptRule(match="goodbye"), prompt=prompt)

    assert isinstance(failed, Failed)
    assert (failed.code, failed.param) == ("no_matching_rule", param)


def test_token_ids_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no vocabulary"):
        events(ECHO, prompt=TokensPrompt([1]))


def test_max_tokens_cuts_and_says_so() -> None:
    said = events(ECHO, max_tokens=2)

    assert text_of(said) == "you said "
    assert isinstance(said[-1], Finished)
    assert (said[-1].reason, said[-1].usage.completion_tokens) == ("length", 2)


def test_a_stop_string_ends_the_text_before_it() -> None:
    assert text_of(events(ECHO, stop=("xyz", "hello"))) == "you said "


def test_tool_calls_follow_the_text() -> None:
    call = ScriptedToolCall(name="weather", arguments={"city": "Köln"})

    *_, delta, finished = events(ScriptRule(text="wait", tool_calls=(call,)))

    assert isinstance(delta, Delta)
    assert [(call.name, call.arguments) for call in delta.tool_calls] == [("weather", '{"city": "K\\u00f6ln"}')]
    assert isinstance(finished, Finished)
    assert finished.reason == "tool_calls"


def test_an_error_ends_the_answer_after_its_text() -> None:
    *_, ending = said = events(ScriptRule(text="so far", error=ScriptedError(code="overloaded", message="full")))

    assert text_of(said) == "so far"
    assert ending == Failed("overloaded", "full")
