"""A last message of the assistant in `POST /v1/chat/completions`: the beginning of the answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.types import ChatMessage, ChatPrompt
from tests.api.conftest import Stack

URL = "/v1/chat/completions"
USER = {"role": "user", "content": "Which?"}
BEGUN = {"role": "assistant", "content": "The best is ("}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}


def chat(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"model": "talker", "messages": list(messages), **more}


async def prompt_of(client: httpx.AsyncClient, stack: Stack, body: dict[str, Any]) -> ChatPrompt:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    prompt = stack.chat.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize(
    "request_body",
    [
        chat(USER, BEGUN),
        chat(USER, {**BEGUN, "prefix": True}),  # DeepSeek, Mistral
        chat(USER, BEGUN, continue_final_message=True, add_generation_prompt=False),  # vLLM
        chat(USER, BEGUN, response_format={"type": "json_object"}),  # the form of what follows
    ],
)
async def test_what_the_assistant_said_last_is_continued(
    client: httpx.AsyncClient, stack: Stack, request_body: dict[str, Any]
) -> None:
    prompt = await prompt_of(client, stack, request_body)

    assert prompt.continues_last
    assert prompt.messages[-1] == ChatMessage(role="assistant", content="The best is (")


@pytest.mark.parametrize(
    "request_body",
    [
        chat(USER),
        chat(USER, BEGUN, USER),
        chat(USER, {**BEGUN, "prefix": False}, USER),  # its default in Mistral's SDK
        chat(USER, CALLING),
        chat(USER, continue_final_message=False, add_generation_prompt=True),  # vLLM's defaults
    ],
)
async def test_everything_else_is_answered_by_a_turn_of_its_own(
    client: httpx.AsyncClient, stack: Stack, request_body: dict[str, Any]
) -> None:
    assert not (await prompt_of(client, stack, request_body)).continues_last


async def test_the_answer_holds_only_the_continuation(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json=chat(USER, BEGUN))).json()

    assert body["choices"][0]["message"]["content"] == "Hello there"


@pytest.mark.parametrize(
    ("request_body", "param", "words"),
    [
        (chat(USER, BEGUN, continue_final_message=False), "continue_final_message", "and is continued"),
        (chat(USER, BEGUN, add_generation_prompt=True), "add_generation_prompt", "and is continued"),
        (chat(USER, continue_final_message=True), "continue_final_message", "begins no answer"),
        (chat(USER, add_generation_prompt=False), "add_generation_prompt", "begins no answer"),
        (chat(USER, CALLING, continue_final_message=True), "continue_final_message", "begins no answer"),
        (chat(USER, {**BEGUN, "prefix": True}, USER), "messages", "only the last one"),
        (chat(USER, {**BEGUN, "prefix": False}), "messages", "cannot have prefix: false"),
        (chat(USER, {**CALLING, "prefix": True}), "messages", "has tool_calls"),
        (chat(USER, {**BEGUN, "reasoning_content": "Hm"}), "messages", "no reasoning"),
        (chat(BEGUN), "messages", "before the beginning"),
    ],
)
async def test_what_contradicts_it_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, request_body: dict[str, Any], param: str, words: str
) -> None:
    response = await client.post(URL, json=request_body)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]
    assert stack.chat.requests == []
