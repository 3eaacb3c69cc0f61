"""The route table and the table of operations say the same."""

from __future__ import annotations

import re

import httpx
import pytest
from starlette.routing import Route

from server.api.openapi.operation import Operation
from server.api.openapi.operations import OPERATIONS
from server.api.routes import build_routes
from server.config.server_section import Limits
from server.models.registry import ModelRegistry
from server.services import build_services

WHERE = "add or remove its `Operation` in server/api/openapi/*_operations.py, in the file of its topic"


def routes() -> dict[tuple[str, str], Route]:
    limits = Limits()
    services = build_services(ModelRegistry([]), limits, started_at_s=0, version="")
    return {
        (method, route.path.replace(":path", "")): route
        for route in build_routes(services, limits)
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_every_route_is_described_and_nothing_else_is() -> None:
    described = {(each.method, each.path) for each in OPERATIONS}

    assert routes().keys() - described == set(), f"routes without a description; {WHERE}"
    assert described - routes().keys() == set(), f"descriptions without a route; {WHERE}"
    assert len(OPERATIONS) == len(described)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda each: each.id)
def test_every_body_has_an_example_that_is_accepted(operation: Operation) -> None:
    assert operation.body is not None
    assert operation.example is not None

    operation.body.model_validate(operation.example)


def test_ids_are_unique() -> None:
    assert len({each.id for each in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("path", sorted({each.path for each in OPERATIONS}))
async def test_a_method_that_a_path_lacks_is_refused_as_everything_else_is(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.patch(re.sub(r"\{\w+\}", "x", path), headers={"x-request-id": "mine"})

    assert response.status_code == 405
    assert code_of(response) == "method_not_allowed"
    assert response.headers["x-request-id"] == "mine"
    assert {each.method for each in OPERATIONS if each.path == path} <= set(response.headers["allow"].split(", "))


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda each: each.id)
async def test_a_body_of_another_type_is_refused_as_everything_else_is(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    path = re.sub(r"\{\w+\}", "x", operation.path)
    response = await client.request(operation.method, path, content=b"a", headers={"content-type": "text/plain"})

    assert response.status_code == 415
    assert code_of(response) == "unsupported_media_type"
    assert "x-request-id" in response.headers


def code_of(response: httpx.Response) -> str:
    """Of an error in OpenAI's shape, or in Anthropic's."""
    error = response.json()["error"]
    return str(error["details"]["error_code"] if "details" in error else error["code"])
