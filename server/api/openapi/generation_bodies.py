"""Answers of chat, completions and the routes about tokens."""

from __future__ import annotations

from typing import Literal

from server.api.openapi.body import ABSENT, Body, Count, JsonObject, UnixTime

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokensDetails(Body):
    cached_tokens: Count


class CompletionTokensDetails(Body):
    reasoning_tokens: Count
    accepted_prediction_tokens: Count = ABSENT
    rejected_prediction_tokens: Count = ABSENT


class Timings(Body):
    """As llama.cpp's server has them."""

    cache_n: Count
    prompt_n: Count
    prompt_ms: float
    prompt_per_second: float | None
    predicted_n: Count
    predicted_ms: float
    predicted_per_second: float | None


class Usage(Body):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class CalledFunction(Body):
    name: str
    arguments: str
    """JSON"""


class ToolCall(Body):
    id: str
    type: Literal["function"]
    function: CalledFunction


class FileCitation(Body):
    """OpenAI's; `index` points into `x.sources`."""

    type: Literal["file_citation"]
    index: Count
    file_id: str
    filename: str
    start_index: Count
    end_index: Count
    x: JsonObject


class Citation(Body):
    """Cohere's: a stretch of the answer, and what it rests on."""

    start: Count
    end: Count
    text: str
    type: Literal["TEXT_CONTENT"]
    sources: list[JsonObject]
    x: JsonObject


class ChatMessage(Body):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str = ABSENT
    tool_calls: list[ToolCall] = ABSENT
    annotations: list[FileCitation] = ABSENT
    """of a grounded answer, as are `citations` and `x`"""
    citations: list[Citation] = ABSENT
    x: JsonObject = ABSENT


class ChatChoice(Body):
    index: Count
    message: ChatMessage
    logprobs: JsonObject | None
    finish_reason: FinishReason


class ChatCompletion(Body):
    id: str
    object: Literal["chat.completion"]
    created: UnixTime
    model: str
    system_fingerprint: str
    service_tier: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings | None = ABSENT


class CalledFunctionDelta(Body):
    name: str = ABSENT
    arguments: str


class ToolCallDelta(Body):
    """`id`, `type` and `name` come once, with the first delta of a call."""

    index: Count
    id: str = ABSENT
    type: Literal["function"] = ABSENT
    function: CalledFunctionDelta


class ChatDelta(Body):
    role: Literal["assistant"] = ABSENT
    content: str | None = ABSENT
    refusal: str | None = ABSENT
    reasoning_content: str = ABSENT
    tool_calls: list[ToolCallDelta] = ABSENT
    annotations: list[FileCitation] = ABSENT
    citations: list[Citation] = ABSENT
    x: JsonObject = ABSENT


class ChatChunkChoice(Body):
    index: Count
    delta: ChatDelta
    logprobs: JsonObject | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Body):
    id: str
    object: Literal["chat.completion.chunk"]
    created: UnixTime
    model: str
    system_fingerprint: str
    service_tier: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = ABSENT
    timings: Timings | None = ABSENT


class CompletionChoice(Body):
    index: Count
    text: str
    logprobs: JsonObject | None
    finish_reason: FinishReason


class Completion(Body):
    id: str
    object: Literal["text_completion"]
    created: UnixTime
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings | None = ABSENT


class CompletionChunkChoice(Body):
    index: Count
    text: str
    logprobs: JsonObject | None
    finish_reason: FinishReason | None


class CompletionChunk(Body):
    id: str
    object: Literal["text_completion"]
    created: UnixTime
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None = ABSENT
    timings: Timings | None = ABSENT


class SpelledToken(Body):
    id: Count
    piece: str | list[int]
    """the token's text, or its bytes where they are not UTF-8 by themselves"""


class ModelTokens(Body):
    model: str
    count: Count
    max_model_len: Count | None
    """tokens that prompt and answer may have together"""
    tokens: list[Count] | list[SpelledToken]
    """with `with_pieces`, the latter"""
    token_strs: list[str] = ABSENT


class TextToken(Body):
    """A token of an embedding model; `start` and `stop` count characters."""

    id: Count
    text: str
    special: bool
    start: Count | None
    stop: Count | None


class DetokenizedText(Body):
    content: str
    """of a code point that is cut, U+FFFD"""
    prompt: str
    """the same"""


class PromptPart(Body):
    text: str
    parses_special: bool
    """whether control-token strings in it are control tokens: the template's are, those in messages never"""


class AppliedTemplate(ModelTokens):
    """What exactly goes into the model: `tokens`. Sent back as text, what users wrote could become control tokens."""

    prompt: str
    parts: list[PromptPart]
    """the prompt once more"""
