"""Answers of the Responses API and of Anthropic's; their SDKs' own types are what the tests hold them against."""

from __future__ import annotations

from typing import Literal

from server.api.openapi.body import Body, Count, JsonObject, UnixTime


class StoredResponse(Body):
    id: str
    object: Literal["response"]
    created_at: UnixTime
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[JsonObject]
    """items, each with a `type`: `message`, `reasoning`, `function_call`, `file_search_call`"""
    usage: JsonObject | None
    error: JsonObject | None
    incomplete_details: JsonObject | None
    previous_response_id: str | None


class ResponseStreamEvent(Body):
    type: str
    sequence_number: Count


class DeletedResponse(Body):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ItemList(Body):
    object: Literal["list"]
    data: list[JsonObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AnthropicMessage(Body):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[JsonObject]
    """blocks, each with a `type`: `thinking`, `text`, `tool_use`"""
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"] | None
    stop_sequence: str | None
    usage: JsonObject


class AnthropicStreamEvent(Body):
    type: str


class PromptTokens(Body):
    input_tokens: Count


class AnthropicError(Body):
    type: str
    message: str


class AnthropicErrorBody(Body):
    type: Literal["error"]
    error: AnthropicError
    request_id: str
