"""Requests to `/v1/responses`, their answers, and what they come to."""

from __future__ import annotations

import json
from typing import Any

import httpx

from server.types import ChatMessage, ChatPrompt, Delta, Finished, GenerateRequest, Started, Tool, ToolCallDelta, Usage
from tests.api.conftest import Stack
from tests.fakes.responses import check_response

URL = "/v1/responses"
HELLO: dict[str, Any] = {"model": "talker", "input": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}
TIME = {"type": "function", "name": "time"}
NAMED = {"type": "function", "name": "time"}
TOOLS = (
    Tool(name="weather", description="d", parameters=json.dumps(SCHEMA, separators=(",", ":")), strict=True),
    Tool(name="time"),
)
CALLING = (
    Started(5),
    Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather"), ToolCallDelta(0, arguments='{"city":"Oslo"}'))),
    Finished("tool_calls", Usage(prompt_tokens=5)),
)


async def answer(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    response = await client.post(URL, json={**HELLO, **request})
    assert response.status_code == 200, response.text
    return check_response(response.json())


async def error_of(client: httpx.AsyncClient, **request: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post(URL, json={**HELLO, **request})
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error


def asked(stack: Stack) -> GenerateRequest:
    return stack.chat.requests[-1]


def prompt_of(stack: Stack) -> ChatPrompt:
    prompt = asked(stack).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def said(text: str = "Hello there") -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def allowed(*tools: Any, mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}
