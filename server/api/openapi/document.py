"""Operations to an OpenAPI 3.1 document. Request schemas are those that validate, in what they accept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from server.api.access import scopes_of
from server.api.middleware.asker import TIMEOUT_HEADER
from server.api.model_paths import is_model_path
from server.api.openapi.body import ErrorBody
from server.api.openapi.operation import Operation
from server.api.openapi.operations import OPERATIONS

JsonSchema = dict[str, Any]

_OUTER = ("description", "default", "x-ignored")
"""What is said of a field, rather than of its type."""

_REFERENCES = "#/components/schemas/{model}"
_LINK = re.compile(r"\[([^]]+)\]\([^)]*\)")
_PATH_FIELD = re.compile(r"\{(\w+)\}")

STATUSES = {
    400: "The request is wrong; `param` names the field at fault.",
    401: "No key was sent, or one that nobody has.",
    403: "The key does not have the scope for this, or a browser sent it for another site's page.",
    404: "There is no such model, file, vector store, batch or response.",
    409: "It does not fit what is stored.",
    413: "More bytes, texts or documents than the server accepts.",
    415: "The body is of another media type, or compressed.",
    429: "The key has used up what it may use for now, or the address has sent too many wrong keys.",
    499: "Whoever runs the server has cancelled the request.",
    500: "The data directory cannot be read or written.",
    503: "The model, the data directory or the server cannot answer now; try again later.",
    504: "It was not answered within its `timeout_s` or `x-request-timeout`.",
    507: "There is no room left for what was sent.",
    529: "The model has too much to do; try again later.",
}

_KEYED = frozenset({401, 403, 429, 503})
"""What all routes that need a key may answer; 503: while it is not known who has keys."""

_REFUSALS = {
    400: "The bytes are no HTTP/1.1 request that everybody would read in the same way; the connection ends.",
    408: "The request did not arrive in time; the connection ends.",
    414: "The request line is too long; the connection ends.",
    431: "The headers are too large, or too many; the connection ends.",
}
"""What any request may be answered before it gets to a route, always in OpenAI's shape."""

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, on servers that have some."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
}

_REQUEST_ID = {
    "description": "The request's id, taken from the request or made.",
    "required": True,
    "schema": {"type": "string"},
}
_RETRY_AFTER = {"description": "When to try again, in seconds.", "schema": {"type": "integer", "minimum": 0}}
_TIMEOUT = {
    "description": "How long the request is waited for: seconds, or milliseconds as in `1500ms`.",
    "schema": {"type": "string"},
}

_ASKED = frozenset({429, 504})
"""Statuses of all that asks a model: its key has limits, and it may allow only so much time."""

DESCRIPTION = (
    "OpenAI's API where OpenAI has one, Cohere's and Jina's for rerank, and the dialects of others. `null` means the"
    " default, for every parameter; what is not known is refused by name."
)


def build_document(version: str, operations: Sequence[Operation] = OPERATIONS) -> JsonSchema:
    """Make the document; takes a tenth of a second.

    Args:
        version: Hearth's own.
    """
    schemas = _Schemas(operations)
    paths: dict[str, JsonSchema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hearth",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": topic} for topic in dict.fromkeys(operation.topic for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": {str(status): _refusal(text, schemas) for status, text in _REFUSALS.items()},
            "headers": {"request-id": _REQUEST_ID},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


class _Schemas:
    """The schemas of all requests and answers.

    Attributes:
        definitions: By name, as `of_request` and `of_answer` refer to them.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        requests = {kind for each in operations for kind in (each.body,) if kind}
        answers = [
            kind
            for each in operations
            for kind in (each.answer, each.events, each.error_body, each.unready)
            if kind is not None
        ]
        answers.append(ErrorBody)
        self._requests, accepted = _generate(sorted(requests, key=lambda kind: kind.__name__))
        self._answers, sent = _generate(answers)
        for definition in accepted.values():
            _let_null_mean_default(definition)
        twice = accepted.keys() & sent.keys()
        assert not twice, f"a request and an answer have parts of the same name: {sorted(twice)}; rename one"
        self.definitions = {name: _plain(each) for name, each in sorted((accepted | sent).items())}
        for name in self.definitions.keys() - self._used():
            del self.definitions[name]

    def _used(self) -> set[str]:
        """Names that requests and answers lead to; pydantic also describes what validators make of them."""
        found: set[str] = set()
        left = _references([self._requests, self._answers])
        while left:
            found |= left
            left = _references([self.definitions[name] for name in left]) - found
        return found

    def of_request(self, kind: type[BaseModel]) -> JsonSchema:
        return self._requests[repr(kind)]

    def of_answer(self, kind: Any) -> JsonSchema:
        return self._answers[repr(kind)]


def _generate(kinds: Iterable[Any]) -> tuple[dict[str, JsonSchema], dict[str, JsonSchema]]:
    """The schema of each type, by its `repr`, and what they refer to, by name."""
    named = {repr(kind): kind for kind in kinds}
    mode: JsonSchemaMode = "validation"
    inputs = [(name, mode, TypeAdapter(kind)) for name, kind in named.items()]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCES)
    return {name: schema for (name, _), schema in schemas.items()}, definitions.get("$defs", {})


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rsplit("/", 1)[1]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(_references, schema.values()))


def _let_null_mean_default(definition: JsonSchema) -> None:
    """As `WireModel` does."""
    required = definition.get("required", ())
    for name, schema in definition.get("properties", {}).items():
        if name not in required and not _takes_null(schema):
            inner = {key: value for key, value in schema.items() if key not in _OUTER}
            outer = {key: schema[key] for key in _OUTER if key in schema and schema[key] is not None}
            definition["properties"][name] = {"anyOf": [inner, {"type": "null"}], **outer}


def _takes_null(schema: JsonSchema) -> bool:
    says_nothing = not {"type", "anyOf", "oneOf", "enum", "const", "$ref"} & schema.keys()
    return (
        says_nothing
        or schema.get("type") == "null"
        or any(part.get("type") == "null" for part in schema.get("anyOf", ()))
    )


def _plain(schema: Any) -> Any:
    """Without titles, which repeat names, and with descriptions that need no other page."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if isinstance(text := plain.get("description"), str):
        plain["description"] = _LINK.sub(r"\1", " ".join(text.split()))
    return plain


# ---- one operation


def _operation(operation: Operation, schemas: _Schemas) -> JsonSchema:
    scopes = scopes_of(operation.path)
    described: JsonSchema = {
        "operationId": operation.id,
        "tags": [operation.topic],
        "summary": operation.summary,
        "security": [{name: []} for name in _SECURITY_SCHEMES] if scopes else [],
        "x-scopes": list(scopes),
        "responses": {"200": _answer(operation, schemas), **_failures(operation, schemas)},
    }
    if operation.may_go_on:
        described["responses"]["202"] = {**_answer(operation, schemas), "description": "It is being done."}
    if parameters := [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)]:
        described["parameters"] = parameters
    if operation.body:
        content: JsonSchema = {"schema": schemas.of_request(operation.body)}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    if operation.form:
        form = {"schema": _form(operation.form)}
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": form}}
    return described


def _path_parameters(operation: Operation) -> Iterable[JsonSchema]:
    for name in _PATH_FIELD.findall(operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameters(operation: Operation) -> Iterable[JsonSchema]:
    if operation.query is None:
        return
    schema = _plain(operation.query.model_json_schema())
    for name, field in schema["properties"].items():
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
        if "anyOf" in field:  # a query has no null
            [kind] = [each for each in field.pop("anyOf") if each != {"type": "null"}]
            parameter["schema"] = kind
        yield parameter


def _header_parameters(operation: Operation) -> Iterable[JsonSchema]:
    if is_model_path(operation.method, operation.path):
        yield {"name": TIMEOUT_HEADER, "in": "header", "required": False, **_TIMEOUT}


def _form(kind: type[BaseModel]) -> JsonSchema:
    """The fields and the file; of an object, each field is one of the form."""
    schema = _plain(kind.model_json_schema())
    definitions = schema.pop("$defs", {})
    fields: JsonSchema = {}
    for name, field in schema["properties"].items():
        [inner] = [each for each in field.get("anyOf", [field]) if each != {"type": "null"}]
        if "$ref" in inner:
            below = definitions[inner["$ref"].rsplit("/", 1)[1]]["properties"]
            fields |= {f"{name}[{key}]": value for key, value in below.items()}
        else:
            fields[name] = inner
    # `format` is of OpenAPI 3.0, and what most tools still look for.
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    required = ["file", *schema.get("required", ())]
    return {"type": "object", "properties": {"file": file, **fields}, "required": required}


def _answer(operation: Operation, schemas: _Schemas) -> JsonSchema:
    content: JsonSchema
    if operation.answer is None:
        content = {operation.media_type: {}}
    else:
        content = {operation.media_type: {"schema": schemas.of_answer(operation.answer)}}
    if operation.events is not None:
        content["text/event-stream"] = {"schema": _event(operation, schemas)}
    return {"description": "As asked.", "headers": _headers(200), "content": content}


def _event(operation: Operation, schemas: _Schemas) -> JsonSchema:
    """One event of a stream: OpenAPI 3.1 has no word for the whole of it, as 3.2 has with `itemSchema`."""
    shapes = [schemas.of_answer(operation.events), schemas.of_answer(operation.error_body)]
    json_text = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": shapes}}
    return {
        "type": "object",
        "description": "Events; chat and completions end with `[DONE]`, unless an error comes last.",
        "properties": {"data": {"anyOf": [json_text, {"const": "[DONE]"}]}},
        "required": ["data"],
    }


def _failures(operation: Operation, schemas: _Schemas) -> JsonSchema:
    content = {"application/json": {"schema": schemas.of_answer(operation.error_body)}}
    failures: JsonSchema = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS}
    for status in (
        operation.errors
        | (_KEYED if scopes_of(operation.path) else {403})
        | (_ASKED if is_model_path(operation.method, operation.path) else frozenset())
    ):
        failures[str(status)] = {"description": STATUSES[status], "headers": _headers(status), "content": content}
    if operation.unready is not None:
        unready = {"application/json": {"schema": schemas.of_answer(operation.unready)}}
        failures["503"] = {"description": "Not yet.", "headers": _headers(503), "content": unready}
    return dict(sorted(failures.items()))


def _refusal(description: str, schemas: _Schemas) -> JsonSchema:
    content = {"application/json": {"schema": schemas.of_answer(ErrorBody)}}
    return {"description": description, "headers": _headers(400), "content": content}


def _headers(status: int) -> JsonSchema:
    headers: JsonSchema = {"x-request-id": {"$ref": "#/components/headers/request-id"}}
    return {**headers, "retry-after": _RETRY_AFTER} if status in (429, 503, 529) else headers
