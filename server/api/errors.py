"""The one place where errors meet HTTP: class -> status and OpenAI type, and the handlers that write the body.

Every error body is `{"error": {"message", "type", "param", "code"}}`, 404 and 405 of unknown routes included; on the
paths of Anthropic's API it is as `anthropic_errors.py` has it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from server.api.anthropic_errors import anthropic_error, speaks_anthropic
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.errors import (
    Conflict,
    ContextLengthExceeded,
    DeadlineExceeded,
    Forbidden,
    HearthError,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    ModelLoading,
    ModelNotFound,
    ModelUnavailable,
    NoRoom,
    ObjectNotFound,
    Overloaded,
    QuotaExceeded,
    Reindexed,
    RequestCancelled,
    RequestTooLarge,
    StorageError,
    StorageFull,
    StorageUnavailable,
    TooManyFailedKeys,
    Unauthenticated,
    WorkerCrashed,
)

logger = logging.getLogger(__name__)


class UnsupportedMediaType(InvalidRequest):
    """The body's type or encoding is not accepted."""

    code = "unsupported_media_type"


MAX_DRAINED_BYTES = 64 * 1024
"""Of a body that was refused unread."""

MAX_RETRY_AFTER_S = 120
"""The SDKs of OpenAI do not wait for longer, but try again at once."""

INVALID = "invalid_request_error"
SERVER = "server_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
RATE_LIMIT = "rate_limit_error"

ERROR_TABLE: dict[type[HearthError], tuple[int, str]] = {
    Unauthenticated: (401, AUTHENTICATION),
    TooManyFailedKeys: (429, RATE_LIMIT),
    Forbidden: (403, PERMISSION),
    InvalidRequest: (400, INVALID),
    ContextLengthExceeded: (400, INVALID),
    RequestTooLarge: (413, INVALID),
    UnsupportedMediaType: (415, INVALID),
    LimitExceeded: (429, "rate_limit_error"),
    QuotaExceeded: (429, "insufficient_quota"),
    ModelNotFound: (404, INVALID),
    ObjectNotFound: (404, INVALID),
    Conflict: (409, INVALID),
    RequestCancelled: (499, SERVER),
    StorageError: (500, SERVER),
    StorageFull: (507, SERVER),
    StorageUnavailable: (503, SERVER),
    ModelUnavailable: (503, SERVER),
    ModelLoading: (503, SERVER),
    NoRoom: (503, SERVER),
    WorkerCrashed: (503, SERVER),
    Overloaded: (503, SERVER),
    DeadlineExceeded: (504, SERVER),
    InternalError: (500, SERVER),
}
"""A class that is not listed answers as its nearest listed base, or as `InternalError`."""

SHOULD_RETRY: dict[type[HearthError], bool] = {
    ModelUnavailable: True,
    StorageUnavailable: True,
    Reindexed: True,
    Conflict: False,
    TooManyFailedKeys: False,
    DeadlineExceeded: False,
    RequestCancelled: False,
    StorageFull: False,
    LimitExceeded: True,
    QuotaExceeded: False,
}
"""Whether the same request may succeed soon; of other classes, clients judge by the status."""

INVALID_CODES = (
    "invalid_config",
    "invalid_json",
    "invalid_type",
    "model_kind_mismatch",
    "no_matching_rule",
    "missing_required_parameter",
    "template_error",
    "unknown_parameter",
    "unsupported_parameter",
    "unsupported_value",
)
"""Codes that `InvalidRequest` carries besides its own, wherever they are raised."""

FORBIDDEN_CODES = ("host_not_allowed", "origin_not_allowed")
"""Codes that `Forbidden` carries besides its own."""

HTTP_CODES = {
    400: "invalid_http",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    414: "uri_too_long",
    431: "headers_too_large",
}
"""Codes for what the router refuses (404 and 405), and for what is refused before it is a request (`refusal.py`).

`ERROR_TABLE`, `INVALID_CODES`, `FORBIDDEN_CODES` and this are all the codes that a client can get; a test looks for
others in the source.
"""


def error_body(exc: Exception, scope: Scope) -> tuple[int, dict[str, Any]]:
    """Status and body for any exception; notes the code in the request's record and logs what is our fault."""
    record = record_of(scope)
    known = _presentable(exc, record.request_id)
    status, kind = _look_up(known)
    record.error = known.code
    if status == 500:
        logger.error("request failed", extra={"request_id": record.request_id}, exc_info=exc)
    return _in_dialect(scope, status, message=known.message, kind=kind, param=known.param, code=known.code)


def error_response(
    exc: Exception, scope: Scope, *, shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> Response:
    """The whole response for any exception. `shape` rewrites the body for clients of another API."""
    status, body = error_body(exc, scope)
    headers = _retry_headers(exc)
    model = record_of(scope).model
    if isinstance(exc, ModelNotFound) and model is not None:
        body["detail"] = f"Model '{model}' not found"  # older clients of this API read it
    if status in (413, 415) and not _is_small(scope):
        headers["connection"] = "close"  # the rest of the body is not read
    return JsonResponse(shape(body) if shape else body, status_code=status, headers=headers)


def _is_small(scope: Scope) -> bool:
    """Whether the body is better read to its end than cut off, as that may cost the client the answer."""
    declared = Headers(scope=scope).get("content-length", "")
    return len(declared) <= 6 and declared.isascii() and declared.isdigit() and int(declared) <= MAX_DRAINED_BYTES


def _retry_headers(exc: Exception) -> dict[str, str]:
    """What the SDKs of OpenAI and Anthropic go by; without a word they repeat whatever has 409 or a 5xx."""
    headers = {}
    if isinstance(exc, ModelUnavailable | StorageUnavailable | TooManyFailedKeys | LimitExceeded):
        retry_after_s = min(exc.retry_after_s, MAX_RETRY_AFTER_S)
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
        if isinstance(exc, LimitExceeded):
            headers["retry-after-ms"] = str(max(1, math.ceil(retry_after_s * 1000)))
    if isinstance(exc, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if (kind := next((cls for cls in type(exc).__mro__ if cls in SHOULD_RETRY), None)) is not None:
        headers["x-should-retry"] = str(SHOULD_RETRY[kind]).lower()
    return headers


def exception_handlers() -> dict[Any, Any]:
    """What Starlette calls for each kind of exception. Those nobody foresaw are the crash guard's."""
    return {HearthError: _on_hearth_error, HTTPException: _on_http_exception, ClientDisconnect: _on_disconnect}


async def _on_hearth_error(request: Request, exc: Exception) -> Response:
    return error_response(exc, request.scope)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = HTTP_CODES[exc.status_code]
    record_of(request).error = code
    message = {
        "not_found": f"no route {request.method} {request.scope['path'][:256]}",
        "method_not_allowed": f"{request.method} is not allowed here; see the Allow header",
    }[code]
    status, body = _in_dialect(request.scope, exc.status_code, message=message, kind=INVALID, param=None, code=code)
    headers = {"allow": ", ".join(_allowed_methods(request))} if code == "method_not_allowed" else {}
    return JsonResponse(body, status_code=status, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Of the whole path: Starlette's own answer has those of its first route only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    path = next(route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in routes if route.path == path for method in route.methods or ()})


async def _on_disconnect(_request: Request, _exc: Exception) -> None:
    """Nobody is left to answer; the access log says 499."""


def _in_dialect(
    scope: Scope, status: int, *, message: str, kind: str, param: str | None, code: str
) -> tuple[int, dict[str, Any]]:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    if speaks_anthropic(scope["path"]):
        return anthropic_error(status, body, record_of(scope).request_id)
    return status, body


def _presentable(exc: Exception, request_id: str) -> HearthError:
    """The error as the client may see it: what is not in the table could tell paths or worse."""
    if isinstance(exc, HearthError) and any(cls in ERROR_TABLE for cls in type(exc).__mro__):
        return exc
    return InternalError(f"internal error; the server's log has the details under request id {request_id}")


def _look_up(exc: HearthError) -> tuple[int, str]:
    return next(ERROR_TABLE[cls] for cls in type(exc).__mro__ if cls in ERROR_TABLE)
