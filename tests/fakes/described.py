"""Holds answers against /openapi.json: what is sent has to be what is described."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from server.api.openapi.document import build_document

UNDESCRIBED = {404, 405, 500}
"""Statuses that any path may answer: there is no such route or method, or a test provoked a bug of ours."""


@cache
def document() -> dict[str, Any]:
    return build_document("1.2.3")


class CheckedTransport(httpx.ASGITransport):
    """Passes requests on, and fails the test whose answer is not as described."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in response.stream])
        check(request.method, request.url.path, response.status_code, dict(response.headers), body)
        return response


def check(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Raises AssertionError that names the operation and what is wrong with its answer."""
    operation = operation_of(method, path)
    assert "x-request-id" in headers
    media_type = headers.get("content-type", "").partition(";")[0]
    responses = operation["responses"] if operation else {}
    response = responses.get(str(status))
    if response is None:
        assert status in UNDESCRIBED or operation is None, f"{method} {path} answered {status}, which is not described"
        return
    if "$ref" in response:
        response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response["content"]
    assert media_type in content, f"{method} {path} answered {media_type!r}, which is not described"
    schema = content[media_type].get("schema", {})
    if media_type == "application/json":
        _compare(schema, json.loads(body), f"{method} {path} {status}")
    elif media_type == "text/event-stream":
        for data in re.findall(r"^data: (\{.*)$", body.decode(), re.MULTILINE):
            event = schema["properties"]["data"]["anyOf"][0]["contentSchema"]
            _compare(event, json.loads(data), f"{method} {path}, an event")


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The operation whose template fits, the one with the fewest fields first; None if there is none."""
    for template in sorted(document()["paths"], key=lambda each: each.count("{")):
        last = ".+" if template == "/v1/models/{model}" else "[^/]+"
        if re.fullmatch(re.sub(r"\{\w+\}", last, template), path):
            operation: dict[str, Any] | None = document()["paths"][template].get(method.lower())
            return operation
    return None


def _compare(schema: dict[str, Any], value: Any, where: str) -> None:
    error = next(_validator(json.dumps(schema)).iter_errors(value), None)
    assert error is None, f"{where}: {error.message[:300]} at {error.json_path}; see server/api/openapi"


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": document()["components"]})
