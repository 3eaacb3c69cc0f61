"""Chat requests with sources, and their answers."""

from __future__ import annotations

from typing import Any

import httpx
from openai.types.chat import ChatCompletionUserMessageParam

from tests.api.test_api_chat import URL
from tests.fakes.sources import SEARCH, TEXT

HI: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "How long do I knead?"}]
ASK = {"model": "talker", "messages": HI, "tools": [SEARCH]}
DOCUMENTS = {"model": "talker", "messages": HI, "documents": [TEXT]}


async def message_of(client: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(URL, json=request)
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


async def error_of(client: httpx.AsyncClient, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    response = await client.post(URL, json=request)
    return response.status_code, response.json()["error"]
