"""`POST /v1/messages`: what is refused, and what fails, in Anthropic's shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import ContextLengthExceeded, DeadlineExceeded, InvalidRequest, ModelUnavailable, Overloaded
from tests.api.conftest import Stack
from tests.api.message_requests import COUNT_URL, HELLO, TIME, URL, USER, WEATHER, document, error_of, hello


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"max_tokens": None}, "max_tokens", "is required"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"temperature": 1.5}, "temperature", "less than or equal to 1"),
        ({"messages": []}, "messages", ""),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'user'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "list"),
        (hello({"type": "image", "source": {}}), "messages[0].content[0].type", "'tool_result'"),
        (hello({"type": "search_result"}), "messages[0].content[0].type", "search_result"),
        (
            hello({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}),
            "messages[0].content[0].source.type",
            "base64",
        ),
        (hello({"type": "tool_use", "id": "a", "name": "f", "input": {}}), "messages[0].content[0].type", "tool_use"),
        (
            hello({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}),
            "messages[0].content[0].content[0].type",
            "image",
        ),
        (
            hello(document("a", citations={"enabled": True}), document("b")),
            "messages",
            "for all documents or for none",
        ),
        (hello(document(" ", citations={"enabled": True})), "messages", "with text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "before the beginning"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
                ]
            },
            "messages",
            "blocks of text only",
        ),
        ({"system": [{"type": "image"}]}, "system[0].type", "image"),
        ({"stop_sequences": "x"}, "stop_sequences", "list of strings"),
        ({"stop_sequences": ["a"] * 5}, "stop_sequences", "at most 4"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]", "web_search_20250305"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "is required"),
        ({"tools": [{"name": "f", "input_schema": {"type": "string"}}]}, "tools[0].input_schema", "object"),
        ({"tools": [TIME, TIME]}, "tools", "two of them are named 'time'"),
        ({"tools": [{**TIME, "defer_loading": True}]}, "tools[0].defer_loading", "supports only false"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "it needs tools"),
        ({"tools": [TIME], "tool_choice": {"type": "tool", "name": "tine"}}, "tool_choice", "'tine', which is not"),
        ({"tools": [TIME], "tool_choice": {"type": "required"}}, "tool_choice.type", "'any'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "max_tokens", "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "is required"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type", "'adaptive'"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type", "json_schema"),
        (
            {
                "messages": [USER, {"role": "assistant", "content": "{"}],
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "output_config",
            "beginning of the answer",
        ),
        ({"container": "c"}, "container", "does not support"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management", "only"),
        ({"mcp_servers": [{}]}, "mcp_servers", "supports only []"),
        ({"speed": "fast"}, "speed", 'supports only "standard"'),
        ({"max_completion_tokens": 5}, "max_completion_tokens", "unknown parameter"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], param: str, words: str
) -> None:
    status, error = await error_of(client, {**HELLO, **more})

    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["details"]["param"] == param
    assert words in error["message"]
    assert stack.chat.requests == []


@pytest.mark.parametrize(
    ("raised", "status", "kind"),
    [
        (ContextLengthExceeded("too long", param="messages"), 400, "invalid_request_error"),
        (Overloaded("full"), 529, "overloaded_error"),
        (ModelUnavailable("loading"), 503, "api_error"),
        (DeadlineExceeded("late"), 504, "timeout_error"),
        (ValueError("bug"), 500, "api_error"),
    ],
)
async def test_errors_have_anthropics_types(
    client: httpx.AsyncClient, stack: Stack, raised: Exception, status: int, kind: str
) -> None:
    stack.chat.steps = (raised,)

    got, error = await error_of(client, HELLO)

    assert (got, error["type"]) == (status, kind)


async def test_errors_from_below_name_parameters_as_anthropic_does(client: httpx.AsyncClient, stack: Stack) -> None:
    below = "tools[0].function.parameters"
    stack.chat.steps = (InvalidRequest(f"{below} cannot be honoured", param=below),)

    _, error = await error_of(client, {**HELLO, "tools": [WEATHER]})

    assert error["message"] == "tools[0].input_schema cannot be honoured"
    assert error["details"]["param"] == "tools[0].input_schema"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", URL, b"{", 400, "invalid_request_error"),
        ("POST", URL, b'"' + b"x" * 2_000_000 + b'"', 413, "invalid_request_error"),
        ("GET", URL, b"", 405, "invalid_request_error"),
        ("POST", f"{URL}/batches", b"{}", 404, "not_found_error"),
        ("POST", COUNT_URL, b"[]", 400, "invalid_request_error"),
    ],
)
async def test_whatever_the_router_and_the_body_reader_refuse_has_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    response = await client.request(method, path, content=body, headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert response.json()["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]


async def test_other_routes_keep_openais_shape(client: httpx.AsyncClient) -> None:
    assert set((await client.post("/v1/messagesx", json={})).json()) == {"error"}
