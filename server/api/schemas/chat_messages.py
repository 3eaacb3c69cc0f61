"""The messages of a conversation, as OpenAI writes them, and what may be last among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.tools import MAX_TOOLS, FunctionName
from server.api.schemas.wire import WireModel, invalid
from server.types import ChatMessage, ToolCall

MAX_MESSAGES = 10_000
MAX_PARTS = 1024


def _flatten(content: Any) -> Any:
    """Text parts become one text, a line each; other parts need a model that sees or hears."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid("expected a string or a list of text parts", code="invalid_type")
    if len(content) > MAX_PARTS:
        raise invalid(f"expected at most {MAX_PARTS} parts")
    return "\n".join(_text_of(part) for part in content)


def _text_of(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return text
        case {"type": str(kind)} if kind != "text":
            raise invalid(f"parts of type {kind[:40]!r} are not supported, only 'text'", code="unsupported_value")
    raise invalid('expected parts like {"type": "text", "text": "..."}', code="invalid_type")


class TextPart(WireModel):
    type: Literal["text"]
    text: str


Content = Annotated[str, BeforeValidator(_flatten, json_schema_input_type=str | list[TextPart])]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class SystemMessage(WireModel):
    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None

    def to_message(self) -> ChatMessage:
        return ChatMessage(role=self.role, content=self.content, name=self.name)


class UserMessage(WireModel):
    role: Literal["user"]
    content: Content
    name: Name | None = None

    def to_message(self) -> ChatMessage:
        return ChatMessage(role=self.role, content=self.content, name=self.name)


class FunctionCallText(WireModel):
    name: FunctionName
    arguments: str


class MessageToolCall(WireModel):
    id: Name
    type: Literal["function"] = "function"
    function: FunctionCallText
    index: int | None = None  # left over when a client echoes what it streamed


class AssistantMessage(WireModel):
    """Clients echo our answers, so the fields of an answer that say nothing to the model are taken and dropped.

    `reasoning` is what other servers call `reasoning_content`.
    """

    role: Literal["assistant"]
    tool_calls: Annotated[list[MessageToolCall], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS)]
    content: Annotated[Content | None, Field(validate_default=True)] = None
    name: Name | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    citations: list[Any] | None = None
    x: dict[str, Any] | None = None
    provider_specific_fields: dict[str, Any] | None = None  # LiteLLM's, on every answer
    reasoning_content: str | None = None
    reasoning: str | None = None
    prefix: bool | None = None  # DeepSeek's and Mistral's word for the beginning of the answer

    @field_validator("content", mode="after")
    @classmethod
    def _says_something(cls, content: str | None, info: ValidationInfo) -> str | None:
        if content is None and not info.data.get("tool_calls"):
            raise invalid("expected content or tool_calls", code="invalid_value")
        return content

    def to_message(self) -> ChatMessage:
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls)
        return ChatMessage(
            role=self.role,
            content=self.content or "",
            reasoning=self.reasoning_content or self.reasoning or "",
            name=self.name,
            tool_calls=calls,
        )


class ToolMessage(WireModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: Name
    name: Name | None = None

    def to_message(self) -> ChatMessage:
        return ChatMessage(role=self.role, content=self.content, name=self.name, tool_call_id=self.tool_call_id)


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Discriminator("role")]


def continues(messages: Sequence[Message]) -> bool:
    """Whether the last one is the beginning of the answer: the assistant's, and no calls."""
    last = messages[-1]
    return isinstance(last, AssistantMessage) and not last.tool_calls


def check_begun(messages: list[Message]) -> list[Message]:
    *earlier, last = messages
    if any(isinstance(message, AssistantMessage) and message.prefix for message in earlier):
        raise invalid("only the last one can have prefix: true")
    if not isinstance(last, AssistantMessage):
        return messages
    if last.tool_calls and last.prefix:
        raise invalid("the last one has tool_calls, so it cannot have prefix: true")
    if not last.tool_calls:
        _check_beginning(last, is_alone=not earlier)
    return messages


def check_flag(flag: bool | None, info: ValidationInfo) -> bool | None:
    """Refuse vLLM's flags where they ask for what the last message does not say."""
    if flag is None or not (messages := info.data.get("messages")):
        return flag
    is_begun = continues(messages)
    if flag != (is_begun if info.field_name == "continue_final_message" else not is_begun):
        begun = "begins the answer, and is continued" if is_begun else "begins no answer that could be continued"
        raise invalid(f"the last message {begun}", code="unsupported_value")
    return flag


def _check_beginning(begun: AssistantMessage, *, is_alone: bool) -> None:
    if is_alone:
        raise invalid("expected a message before the beginning of the answer")
    if begun.prefix is False:
        raise invalid("the last one is the beginning of the answer, so it cannot have prefix: false")
    if begun.reasoning_content or begun.reasoning:
        raise invalid("the last one is the beginning of the answer, so it can have content only, no reasoning")
