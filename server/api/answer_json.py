"""An answer in OpenAI's shape: the message of a whole one, and the deltas of a streamed one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.services.generation import Answer
from server.types import Delta, ToolCallDelta


def message_body(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return message


def delta_bodies(event: Delta) -> Iterator[dict[str, Any]]:
    """One delta for each kind of thing that is said, because clients look for one at a time. Only `content` has log
    probabilities."""
    if event.reasoning:
        yield {"reasoning_content": event.reasoning}
    if event.text:
        yield {"content": event.text}
    if event.tool_calls:
        yield {"tool_calls": [_call_delta(delta) for delta in event.tool_calls]}


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    """Id, type and name come once, with the first delta of a call."""
    if not delta.id:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
