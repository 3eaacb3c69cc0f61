"""Requests to `/v1/messages`, and what they come to."""

from __future__ import annotations

import json
from typing import Any

import httpx

from server.types import ChatPrompt, Tool
from tests.api.conftest import Stack

URL, COUNT_URL = "/v1/messages", "/v1/messages/count_tokens"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
HELLO: dict[str, Any] = {"model": "talker", "max_tokens": 10, "messages": [USER]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "d", "input_schema": SCHEMA, "strict": True}
TIME = {"name": "time", "input_schema": {"type": "object"}}
TOOLS = (
    Tool(name="weather", description="d", parameters=json.dumps(SCHEMA, separators=(",", ":")), strict=True),
    Tool(name="time", parameters='{"type":"object","properties":{}}'),
)


def hello(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request whose message has these blocks."""
    return {**HELLO, "messages": [{"role": "user", "content": [*content]}], **more}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def document(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": said}, **more}


async def prompt_of(client: httpx.AsyncClient, stack: Stack, request: dict[str, Any]) -> ChatPrompt:
    response = await client.post(URL, json=request)
    assert response.status_code == 200, response.text
    prompt = stack.chat.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def error_of(client: httpx.AsyncClient, request: dict[str, Any], url: str = URL) -> tuple[int, dict[str, Any]]:
    response = await client.post(url, json=request)
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", response.headers["request-id"])
    error: dict[str, Any] = body["error"]
    return response.status_code, error
