"""Turn pydantic's findings into one `InvalidRequest` that names the field as OpenAI does, e.g. `messages[0].role`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.api.errors import INVALID_CODES
from server.errors import InvalidRequest

MAX_SHOWN = 60
"""Characters of a value or a name that an error message repeats."""

PYDANTIC_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "union_tag_not_found": "missing_required_parameter",
}
"""Ours for pydantic's, where a type or a value is not what is wrong."""

_OWN_CODES = {InvalidRequest.code, *INVALID_CODES}
"""What `schemas.wire` raises: the text is complete, and the location ends with the name of the field."""

_ENDS_WITH_FIELD = _OWN_CODES | {"missing"}
_OBJECT_EXPECTED = {"model_type", "model_attributes_type", "dict_type"}


def to_invalid_request(exc: ValidationError, value: Any, schema: type[BaseModel]) -> InvalidRequest:
    """The first finding, in words. `value` is what was validated: it tells path elements from union tags."""
    error = exc.errors(include_url=False, include_context=True)[0]
    path, found = _walk(error, value)
    name = field_name(path)
    return InvalidRequest(_message(error, name, found, schema), param=name, code=_code(error["type"]))


def field_name(path: Sequence[str | int]) -> str | None:
    """`("messages", 0, "role")` to `messages[0].role`; None for the body itself."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:MAX_SHOWN]}" for part in path)
    return name.removeprefix(".") or None


def _walk(error: ErrorDetails, value: Any) -> tuple[list[str | int], Any]:
    """Follow the location into the value, leaving out the names of union members that pydantic mixes in."""
    path: list[str | int] = []
    for part in error["loc"]:
        if _is_in(value, part):
            path.append(part)
            value = value[part]
    if error["type"] in _ENDS_WITH_FIELD and path[-1:] != [error["loc"][-1]]:
        path.append(error["loc"][-1])  # the field is absent
        value = None
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(str(error["ctx"]["discriminator"]).strip("'"))
        value = value.get(path[-1]) if isinstance(value, dict) else value
    return path, value


def _is_in(value: Any, part: str | int) -> bool:
    return (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))


def _message(error: ErrorDetails, name: str | None, found: Any, schema: type[BaseModel]) -> str:
    kind = error["type"]
    if _code(kind) == "missing_required_parameter":
        return f"{name} is required"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1])[:MAX_SHOWN], schema.model_fields, n=1)
        return f"unknown parameter {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind in _OWN_CODES and isinstance(found, dict | list) and found:
        return f"{name}: {error['msg']}"
    return f"{name or 'the body'} is {_show(found)}; {_expectation(error)}"


def _expectation(error: ErrorDetails) -> str:
    if error["type"] == "union_tag_invalid":
        return f"expected one of {error['ctx']['expected_tags']}"
    if error["type"] in _OBJECT_EXPECTED:
        return "it should be an object"
    text = error["msg"].replace("Input should be", "it should be").replace(" after validation", "")
    return f"{text[:1].lower()}{text[1:]}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    text = orjson.dumps(value).decode()
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _code(kind: str) -> str:
    if kind in _OWN_CODES:
        return kind
    if kind in PYDANTIC_CODES:
        return PYDANTIC_CODES[kind]
    return "invalid_type" if kind.endswith("_type") else "invalid_value"
