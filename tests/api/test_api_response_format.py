"""`response_format` and `grammar`: what reaches the model, and what is refused before."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import InvalidRequest
from server.types import Grammar
from tests.api.conftest import Stack

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"enum": [1, None]}}}
NAMED = {"name": "thing", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object", "", "response_format")),
        (
            {"response_format": {"type": "json_schema", "json_schema": NAMED}},
            Grammar(
                "json_schema",
                '{"type":"object","properties":{"b":{"type":"string"},"a":{"enum":[1,null]}}}',
                "response_format",
            ),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}},
            Grammar("json_schema", "{}", "response_format"),
        ),
        ({"grammar": 'start: "a"'}, Grammar("lark", 'start: "a"', "grammar")),
        ({"grammar": 'root ::= "a"'}, Grammar("gbnf", 'root ::= "a"', "grammar")),
        ({"grammar": {"type": "regex", "definition": "a+"}}, Grammar("regex", "a+", "grammar")),
        (
            {"grammar": {"type": "lark", "definition": 'start: "::="'}, "response_format": {"type": "text"}},
            Grammar("lark", 'start: "::="', "grammar"),
        ),
    ],
)
async def test_the_model_is_told_what_the_text_has_to_be(
    client: httpx.AsyncClient, stack: Stack, fields: dict[str, Any], grammar: Grammar | None
) -> None:
    response = await client.post(URL, json={**HELLO, **fields})

    assert response.status_code == 200
    assert stack.chat.requests[-1].grammar == grammar


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "unknown_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        ({"grammar": ""}, "grammar", "invalid_value"),
        ({"grammar": {"type": "abnf", "definition": "a"}}, "grammar.type", "invalid_value"),
        ({"grammar": "start: A", "response_format": {"type": "json_object"}}, "grammar", "invalid_value"),
        ({"grammar": "start: A", "ignore_eos": True}, "grammar", "invalid_value"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "response_format", "invalid_value"),
        ({"model": "actor", "response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"model": "actor", "grammar": "start: A"}, "grammar", "unsupported_parameter"),
    ],
)
async def test_a_wrong_one_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str, code: str
) -> None:
    response = await client.post(URL, json={**HELLO, **fields})

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)


async def test_what_the_worker_cannot_honour_is_a_400(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (InvalidRequest("the JSON schema cannot be honoured: why", param="response_format"),)
    response = await client.post(URL, json={**HELLO, "response_format": {"type": "json_object"}})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"
