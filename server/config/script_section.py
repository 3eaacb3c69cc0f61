"""What models.yaml may say under `script`: the answers of a chat model without weights."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from server.config.section import Section

ScriptedErrorCode = Literal[
    "context_length_exceeded", "internal_error", "invalid_value", "model_unavailable", "overloaded", "worker_crashed"
]


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"expected a regular expression ({exc})") from exc
    return pattern


class ScriptedToolCall(Section):
    """A tool call in a scripted answer."""

    name: str = Field(min_length=1, description="Function to call.")
    arguments: dict[str, object] = Field(default_factory=dict, description="Its arguments.")


class ScriptedError(Section):
    """An error in place of (or after part of) a scripted answer."""

    code: ScriptedErrorCode = Field(
        "internal_error", description="Error code, as in docs/api.md; `worker_crashed` kills the worker."
    )
    message: str = Field("scripted error", description="What the client reads.")


class ScriptRule(Section):
    """One rule of a scripted chat model: the first whose pattern fits what a user or a tool said last answers."""

    match: Annotated[str, AfterValidator(_check_regex)] = Field(
        "", description="Regular expression searched in what a user or a tool said last; empty matches all."
    )
    reasoning: str = Field("", description="What is thought before the answer.")
    text: str = Field("", description="Answer; `{input}` stands for what a user or a tool said last.")
    tool_calls: tuple[ScriptedToolCall, ...] = Field(
        (), description="Tool calls after the text, where the request offers these functions."
    )
    delay_ms: float = Field(0, ge=0, le=600_000, description="Wait before each piece of the answer (words are pieces).")
    error: ScriptedError | None = Field(None, description="End with this error after the text.")
