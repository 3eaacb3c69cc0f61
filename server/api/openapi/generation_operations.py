"""Routes that generate, and those that tell tokens."""

from __future__ import annotations

from server.api.openapi.dialect_bodies import (
    AnthropicErrorBody,
    AnthropicMessage,
    AnthropicStreamEvent,
    DeletedResponse,
    ItemList,
    PromptTokens,
    ResponseStreamEvent,
    StoredResponse,
)
from server.api.openapi.generation_bodies import (
    AppliedTemplate,
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
    DetokenizedText,
    ModelTokens,
    TextToken,
)
from server.api.openapi.operation import ASKS_MODEL, GENERATES, READS, WRITES, Operation
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.messages import CountTokensRequest, MessageRequest
from server.api.schemas.responses import InputItemsQuery, ResponseRequest, RetrieveQuery
from server.api.schemas.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest

CHAT_MODEL = "smollm2-135m-instruct"
HELLO = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}

GENERATION = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        topic="generation",
        summary="Answer a conversation",
        body=ChatRequest,
        answer=ChatCompletion,
        events=ChatCompletionChunk,
        errors=GENERATES | READS | {409},
        example=HELLO,
    ),
    Operation(
        method="POST",
        path="/v1/completions",
        topic="generation",
        summary="Continue text as it stands",
        body=CompletionRequest,
        answer=Completion,
        events=CompletionChunk,
        errors=GENERATES,
        example={"model": CHAT_MODEL, "prompt": "Once upon a time", "max_tokens": 16},
    ),
)

RESPONSE = "/v1/responses/{response_id}"

RESPONSES = (
    Operation(
        method="POST",
        path="/v1/responses",
        topic="generation",
        summary="Answer a conversation, as OpenAI's Responses API does",
        body=ResponseRequest,
        answer=StoredResponse,
        events=ResponseStreamEvent,
        errors=GENERATES | WRITES | {409},
        example={"model": CHAT_MODEL, "input": "Say hello.", "max_output_tokens": 16},
    ),
    Operation(
        method="GET",
        path=RESPONSE,
        topic="generation",
        summary="Look at a stored response",
        query=RetrieveQuery,
        answer=StoredResponse,
        errors=READS | {400},
    ),
    Operation(
        method="DELETE",
        path=RESPONSE,
        topic="generation",
        summary="Delete a stored response",
        answer=DeletedResponse,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path=f"{RESPONSE}/input_items",
        topic="generation",
        summary="List what was sent for a stored response",
        query=InputItemsQuery,
        answer=ItemList,
        errors=READS | {400},
    ),
)

MESSAGES = (
    Operation(
        method="POST",
        path="/v1/messages",
        topic="generation",
        summary="Answer a conversation, as Anthropic's API does",
        body=MessageRequest,
        answer=AnthropicMessage,
        events=AnthropicStreamEvent,
        errors=GENERATES | READS | {409, 529},
        error_body=AnthropicErrorBody,
        example=HELLO,
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        topic="generation",
        summary="Count the tokens of a conversation",
        body=CountTokensRequest,
        answer=PromptTokens,
        errors=ASKS_MODEL | {529},
        error_body=AnthropicErrorBody,
        example={name: value for name, value in HELLO.items() if name != "max_tokens"},
    ),
)

TOKENS = tuple(
    operation
    for base in ("/v1", "")
    for operation in (
        Operation(
            method="POST",
            path=f"{base}/tokenize",
            topic="tokens",
            summary="Tell the tokens of a text or a conversation",
            body=TokenizeRequest,
            answer=ModelTokens | list[list[TextToken]],
            errors=ASKS_MODEL,
            example={"content": "Once upon a time", "with_pieces": True},
        ),
        Operation(
            method="POST",
            path=f"{base}/detokenize",
            topic="tokens",
            summary="Tell the text of tokens",
            body=DetokenizeRequest,
            answer=DetokenizedText,
            errors=ASKS_MODEL,
            example={"tokens": [1, 2, 3]},
        ),
        Operation(
            method="POST",
            path=f"{base}/chat/apply_template",
            topic="tokens",
            summary="Tell what exactly goes into the model for a chat request",
            body=ApplyTemplateRequest,
            answer=AppliedTemplate,
            errors=ASKS_MODEL,
            example=HELLO,
        ),
    )
)
