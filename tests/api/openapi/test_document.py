"""The document is what OpenAPI 3.1 wants, and says what is accepted."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from server.api.openapi.document import build_document
from server.api.openapi.operation import Operation
from server.api.openapi.operations import OPERATIONS
from server.api.refusal import Refusal
from server.api.schemas.chat import ChatRequest
from tests.fakes.described import document

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def schema_of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}


def operations() -> list[dict[str, Any]]:
    return [operation for methods in document()["paths"].values() for operation in methods.values()]


def is_described(body: Any, name: str = "ChatRequest") -> bool:
    return Draft202012Validator(schema_of(name)).is_valid(body)


def is_accepted(body: Any) -> bool:
    try:
        ChatRequest.model_validate(body)
    except ValidationError:
        return False
    return True


async def test_it_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == document()
    assert document()["openapi"] == "3.1.0"


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere() -> None:
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)

    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document())))

    assert names <= document()["components"]["schemas"].keys()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"temperature": None, "tools": None, "stop": None, "response_format": None, "audio": None, "user": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "nobody", "content": "hi"}]},
        {"messages": []},
        {"stop": ["a", "b"]},
        {"stop": ["a"] * 5},
        {"stop": 7},
        {"logit_bias": {"7": -1.5}},
        {"logit_bias": {"7": "x"}},
        {"grammar": "start: /a/"},
        {"grammar": {"type": "regex", "definition": "a"}},
        {"grammar": {"type": "prose", "definition": "a"}},
        {"temperature": 2},
        {"temperature": 2.1},
        {"temperature": "1"},
        {"modalities": ["text"]},
        {"modalities": ["audio"]},
        {"web_search_options": {}},
        {"metadata": {"a": "b"}},
        {"unheard_of": 1},
        {"documents": ["a", {"id": "x", "text": "b"}]},
        {"documents": "a"},
    ],
    ids=repr,
)
def test_what_is_described_is_what_is_accepted(change: dict[str, Any]) -> None:
    body = {**CHAT, **change}

    assert is_described(body) == is_accepted(body)


def test_descriptions_need_no_other_page() -> None:
    assert "](#" not in json.dumps(document())


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda each: each.id)
def test_examples_are_as_described(operation: Operation) -> None:
    assert operation.body is not None

    assert is_described(operation.example, operation.body.__name__)


def test_what_has_the_same_name_in_a_request_and_an_answer_is_refused() -> None:
    clash = Operation(method="GET", path="/", topic="server", summary="", body=ChatRequest, answer=ChatRequest)

    with pytest.raises(AssertionError, match="rename one"):
        build_document("", [clash])


@pytest.mark.parametrize("status", [400, 408, 414, 431])
def test_what_is_refused_before_any_route_is_described_on_every_one(status: int) -> None:
    shared = document()["components"]["responses"][str(status)]
    validator = Draft202012Validator(
        {**shared["content"]["application/json"]["schema"], "components": document()["components"]}
    )
    head, _, body = Refusal(status, "no").answer().partition(b"\r\n\r\n")

    assert validator.is_valid(json.loads(body)) and b"\r\nx-request-id: " in head
    for operation in operations():
        own = operation["responses"][str(status)]
        assert own == {"$ref": f"#/components/responses/{status}"} or (status == 400 and "content" in own)


def test_all_but_health_may_be_refused_while_the_server_stops() -> None:
    served_to_the_end = {each["operationId"] for each in operations() if "503" not in each["responses"]}

    assert served_to_the_end == {"get_health", "get_health_live", "get_livez"}


def test_it_says_what_needs_a_key() -> None:
    chat, health = document()["paths"]["/v1/chat/completions"]["post"], document()["paths"]["/health"]["get"]

    assert chat["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert (chat["x-scopes"], health["security"], health["x-scopes"]) == (["inference"], [], [])
    assert {"401", "403", "429"} <= chat["responses"].keys()
    assert document()["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}
