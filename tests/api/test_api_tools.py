"""What `tools` and `tool_choice` may be, and what they come to."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.types import NO_TOOLS, ChatPrompt, Tool, ToolUse
from tests.api.conftest import Stack

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True},
}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = (
    Tool(name="weather", description="d", parameters=json.dumps(SCHEMA, separators=(",", ":")), strict=True),
    Tool(name="time"),
)


def only(*names: str, mode: str = "auto") -> dict[str, Any]:
    named = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


NAMED = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("more", "use"),
    [
        ({}, ToolUse(tools=TOOLS, names=("weather", "time"))),
        (
            {"tool_choice": "auto", "parallel_tool_calls": False},
            ToolUse(tools=TOOLS, names=("weather", "time"), is_parallel=False),
        ),
        ({"tool_choice": "none"}, NO_TOOLS),
        ({"tool_choice": "required"}, ToolUse(tools=TOOLS, names=("weather", "time"), is_required=True)),
        ({"tool_choice": NAMED}, ToolUse(tools=TOOLS, names=("time",), is_required=True, is_parallel=False)),
        ({"tool_choice": only("time")}, ToolUse(tools=TOOLS, names=("time",))),
        ({"tool_choice": only("time", mode="required")}, ToolUse(tools=TOOLS, names=("time",), is_required=True)),
    ],
    ids=["default", "not parallel", "none", "required", "named", "some allowed", "some required"],
)
async def test_a_choice_says_what_may_and_must_be_called(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], use: ToolUse
) -> None:
    response = await client.post(URL, json={**HELLO, "tools": [WEATHER, TIME], **more})

    assert response.status_code == 200
    prompt = stack.chat.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_use == use


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **more}}


@pytest.mark.parametrize(
    ("more", "param", "text"),
    [
        ({"tools": [TIME, WEATHER, TIME]}, "tools", "two of them are named 'time'"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]", ""),
        ({"tools": [function(name="a b")]}, "tools[0].function.name", ""),
        ({"tools": [TIME, function(parameters=[])]}, "tools[1].function.parameters", "which is an object"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters", '"type": "object"'),
        (
            {"tools": [function(parameters={"properties": {"a": {"type": 123}}})]},
            "tools[0].function.parameters",
            "properties.a.type",
        ),
        (
            {"tools": [function(parameters={"properties": {"a": {"pattern": 5}}})]},
            "tools[0].function.parameters",
            "properties.a.pattern",
        ),
        ({"tools": [function(parameters={"properties": []})]}, "tools[0].function.parameters", "properties should be"),
        ({"tools": [function(parameters={"required": "a"})]}, "tools[0].function.parameters", "a list of strings"),
        ({"tools": [function(parameters={"anyOf": [1]})]}, "tools[0].function.parameters", r"anyOf\[0\]"),
        (
            {"tools": [function(parameters={"$ref": "http://evil/x"})]},
            "tools[0].function.parameters",
            "nothing is fetched",
        ),
        ({"tools": [function(parameters={"minProperties": -1})]}, "tools[0].function.parameters", "0 or more"),
        (
            {"tools": [function(parameters={"title": "x" * 140_000})]},
            "tools[0].function.parameters",
            "at most 131072 bytes",
        ),
        ({"tools": [TIME], "ignore_eos": True}, "tools", "ignore_eos"),
        (
            {"tools": [TIME], "tool_choice": {**NAMED, "function": {"name": "tine"}}},
            "tool_choice",
            "'tine', which is not among",
        ),
        ({"tools": [TIME], "tool_choice": only("time", "tine")}, "tool_choice", "'tine', which is not among"),
        ({"tools": [TIME], "tool_choice": "always"}, "tool_choice", 'expected "none"'),
        ({"tools": [TIME], "tool_choice": {"type": "custom"}}, "tool_choice", 'expected "none"'),
        ({"tools": [TIME], "tool_choice": only()}, "tool_choice", 'expected "none"'),
        ({"tools": [TIME], "tool_choice": 5}, "tool_choice", ""),
        ({"tool_choice": "required"}, "tool_choice", "it needs tools"),
        ({"tool_choice": NAMED}, "tool_choice", "it needs tools"),
        ({"reasoning_effort": "maximal"}, "reasoning_effort", ""),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", ""),
        ({"chat_template_kwargs": {"x": "y" * 2000}}, "chat_template_kwargs.x", "at most 1024"),
        ({"chat_template_kwargs": {f"x{n}": 1 for n in range(40)}}, "chat_template_kwargs", ""),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], param: str, text: str
) -> None:
    response = await client.post(URL, json={**HELLO, **more})

    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert text.replace("\\", "") in error["message"]
    assert stack.chat.requests == []


async def test_schemas_of_all_keywords_are_taken(client: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "title": "t",
        "$defs": {"a": {"type": ["string", "null"], "minLength": 1, "pattern": "^a"}},
        "properties": {
            "a": {"$ref": "#/$defs/a"},
            "b": {"type": "array", "items": {"anyOf": [{"const": 1}, True]}, "prefixItems": [{}], "maxItems": 3},
            "c": {"type": "number", "minimum": 0.5, "multipleOf": 2, "enum": [1, 2]},
            "type": {"type": "object", "additionalProperties": False, "x-own": [1]},
        },
        "required": ["a"],
        "not": {"required": ["d"]},
    }

    response = await client.post(URL, json={**HELLO, "tools": [function(parameters=schema)]})

    assert response.status_code == 200


async def test_a_choice_without_tools_may_be_none(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={**HELLO, "tool_choice": "none", "tools": []})).status_code == 200
