"""Read a JSON body: size and type first, then strict JSON, then the schema. All refusals are 400, 413 or 415.

Strict means: UTF-8 without a byte order mark, no NaN or Infinity, no number outside of double, no lone surrogate, at
most 100 levels and a million values, of which four numbers in a list count as one. A key that appears twice counts with
its last value, as in most JSON readers.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.requests import Request

from server.api.claims import claim_tokens
from server.api.errors import UnsupportedMediaType
from server.api.schemas.wire import WireModel
from server.api.validation import field_name, to_invalid_request
from server.errors import InvalidRequest, RequestTooLarge

MAX_DEPTH = 100
"""Deeper JSON serves no request, and some code behind us recurses."""

MAX_VALUES = 1_000_000
"""Values in one body. Small ones (`[],[],[]`) take thirty times their size in memory, and seconds to make."""

NUMBERS_PER_VALUE = 4
"""Numbers in a list take a few times their size only, and a request may hold 2,048 lists of token ids."""

MAX_BLAME_BYTES = 1 << 20
"""Broken JSON up to this size is read a second time to name the field at fault."""

MAX_INLINE_BYTES = 256 * 1024
"""Larger bodies are parsed in a thread: the largest take most of a second, in which every stream would stand still.
The C code of a parser holds the interpreter's lock, so pauses of up to 0.3 s are left of it, not none."""

Schema = TypeVar("Schema", bound=WireModel)


class JsonBody:
    """Reads request bodies of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def read(self, request: Request, schema: type[Schema]) -> Schema:
        """The body as `schema`.

        Raises:
            UnsupportedMediaType: Not `application/json`, or compressed.
            RequestTooLarge: More than `max_bytes`; noticed before that much is held.
            InvalidRequest: Not strict JSON, or not the schema; `param` names the field.
            LimitExceeded: The request may take more tokens than its key has left.
            ClientDisconnect: The client went away meanwhile.
        """
        check_headers(request, "application/json")
        if declared_length(request) > self._max_bytes:
            raise self._too_large()
        body = await self._read_bytes(request)
        if len(body) > MAX_INLINE_BYTES:
            parsed = await asyncio.to_thread(parse_body, body, schema)
        else:
            parsed = parse_body(body, schema)
        claim_tokens(request, parsed, len(body))
        return parsed

    async def _read_bytes(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"the body is larger than {self._max_bytes} bytes; send less at a time")


def check_headers(request: Request, media_type: str) -> None:
    """Refuse a body of another type, and a compressed one, with UnsupportedMediaType."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != media_type:
        raise UnsupportedMediaType(f"content-type is {declared[:80]!r}; send {media_type!r}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"content-encoding is {encoding[:80]!r}; send the body uncompressed")


def declared_length(request: Request) -> int:
    """How many bytes the body has by its own account; 0 where it does not say. Raises InvalidRequest."""
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise InvalidRequest(f"content-length is {declared[:40]!r}; expected a number of bytes")
    return int(declared[:20])  # cut, it is still too large for everybody


def parse_body(body: bytes, schema: type[Schema]) -> Schema:
    value = parse_json(body)
    try:
        return schema.model_validate(value)
    except ValidationError as exc:
        raise to_invalid_request(exc, value, schema) from exc


def parse_json(body: bytes) -> Any:
    """Strict JSON to Python values. Raises InvalidRequest, and RequestTooLarge for too many values."""
    if _has_too_many_values(body):
        raise RequestTooLarge(f"the body holds more than {MAX_VALUES} values; send less at a time")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        param = _blame(body) if len(body) <= MAX_BLAME_BYTES else None
        raise InvalidRequest(f"the body is not valid JSON: {exc}", param=param, code="invalid_json") from exc
    # Only so many brackets can nest: the common body is cleared by counting, not by walking.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper_than(MAX_DEPTH, value):
        raise InvalidRequest(f"the body is nested more than {MAX_DEPTH} levels deep", code="invalid_json")
    return value


def _has_too_many_values(body: bytes) -> bool:
    """Count commas and brackets, at first with those in strings: few bodies need the exact answer."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) <= MAX_VALUES:
        return False
    characters = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), dtype=np.uint8)
    marks = np.where(np.logical_xor.accumulate(characters == ord('"')), 0, characters)
    num_values = sum(int(np.count_nonzero(marks == ord(mark))) for mark in ",[{")
    num_behind_digits = int(np.count_nonzero((marks[1:] == ord(",")) & (marks[:-1] - ord("0") <= 9)))
    num_in_lists = max(0, num_behind_digits - int(np.count_nonzero(marks == ord(":"))))  # the others may have keys
    return num_values - num_in_lists + num_in_lists / NUMBERS_PER_VALUE > MAX_VALUES


def _is_deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit + 1):
        containers = [node for node in level if isinstance(node, dict | list)]
        if not containers:
            return False
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
    return True


def _blame(body: bytes) -> str | None:
    """The field that holds what JSON has not (NaN, Infinity, a lone surrogate) but lax encoders write."""
    try:
        return _find_invalid(json.loads(body, parse_int=float), ())
    except (ValueError, RecursionError):
        return None


def _find_invalid(value: Any, path: tuple[str | int, ...]) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else field_name(path)
    if isinstance(value, str):
        return None if _is_encodable(value) else field_name(path)
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((name for key, child in children if (name := _find_invalid(child, (*path, key)))), None)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
