"""Errors in Anthropic's shape, on the paths of its API: whatever went wrong, the router's own refusals included."""

from __future__ import annotations

from typing import Any

PATH = "/v1/messages"
OVERLOADED = 529
"""Anthropic's status for it, which its SDKs have a class for."""

_TYPES = {404: "not_found_error", 429: "rate_limit_error", 504: "timeout_error", OVERLOADED: "overloaded_error"}
_NAMES = {"reasoning_effort": "thinking", ".function.parameters": ".input_schema"}
"""What is called otherwise here than in OpenAI's API, whose names come from below."""


def speaks_anthropic(path: str) -> bool:
    return path == PATH or path.startswith(f"{PATH}/")


def anthropic_error(status: int, body: dict[str, Any], request_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body for an error that has these in OpenAI's API; `details` has its code and parameter."""
    error = body["error"]
    if error["code"] == "overloaded":
        status = OVERLOADED
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = {"error_code": error["code"], "param": _renamed(error["param"])}
    said = {"type": kind, "message": _renamed(error["message"]), "details": details}
    return status, {"type": "error", "error": said, "request_id": request_id}


def _renamed(text: str | None) -> str | None:
    for ours, theirs in _NAMES.items():
        text = text and text.replace(ours, theirs)
    return text
