"""The body of `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.sampling import MAX_INT32, SamplingFields
from server.api.schemas.wire import ModelName, WireModel, invalid, only
from server.services.generation import SamplingOptions
from server.types import ChatMessage, ToolCall

MAX_MESSAGES = 10_000
MAX_PARTS = 1024
MAX_TOOLS = 128


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
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind != "text":
            raise invalid(f"parts of type {kind[:40]!r} are not supported, only 'text'", code="unsupported_value")
    raise invalid('expected parts like {"type": "text", "text": "..."}', code="invalid_type")


Content = Annotated[str, BeforeValidator(_flatten)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


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
    """Clients echo our answers, so the fields of an answer that say nothing to the model are taken and dropped."""

    role: Literal["assistant"]
    tool_calls: Annotated[list[MessageToolCall], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS)]
    content: Annotated[Content | None, Field(validate_default=True)] = None
    name: Name | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None

    @field_validator("content", mode="after")
    @classmethod
    def _says_something(cls, content: str | None, info: ValidationInfo) -> str | None:
        if content is None and not info.data.get("tool_calls"):
            raise invalid("expected content or tool_calls", code="invalid_value")
        return content

    def to_message(self) -> ChatMessage:
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls)
        return ChatMessage(role=self.role, content=self.content or "", name=self.name, tool_calls=calls)


class ToolMessage(WireModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: Name
    name: Name | None = None

    def to_message(self) -> ChatMessage:
        return ChatMessage(role=self.role, content=self.content, name=self.name, tool_call_id=self.tool_call_id)


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Discriminator("role")]


class FunctionDefinition(WireModel):
    name: FunctionName
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tool(WireModel):
    type: Literal["function"]
    function: FunctionDefinition


class ChatRequest(SamplingFields):
    model: ModelName
    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_INT32)] = None
    tools: Annotated[list[Tool], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS)]
    tool_choice: str | dict[str, Any] = "none"

    # Known, but honoured only where they change nothing.
    n: Annotated[Any, only(1)] = 1
    logprobs: Annotated[Any, only(False)] = False
    top_logprobs: Annotated[Any, only(0)] = 0
    response_format: Annotated[Any, only({"type": "text"})] = None
    modalities: Annotated[Any, only(["text"])] = None
    reasoning_effort: Annotated[Any, only("none")] = None
    verbosity: Annotated[Any, only("medium")] = None
    functions: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only("none")] = None
    audio: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    moderation: Annotated[Any, only()] = None

    # Known, and without influence on the answer.
    parallel_tool_calls: bool = True
    user: str = ""
    metadata: dict[str, Any] | None = None
    store: bool = False
    service_tier: str = "auto"
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str = ""
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str = ""
    safety_identifier: str = ""

    @field_validator("tool_choice", mode="after")
    @classmethod
    def _needs_tools(cls, choice: str | dict[str, Any], info: ValidationInfo) -> str | dict[str, Any]:
        match choice:
            case "none":
                return choice
            case "auto" | "required" | {"type": "function", "function": {"name": str()}}:
                if not info.data.get("tools"):
                    raise invalid("it needs tools, and the request has none", code="unsupported_parameter")
                return choice
        raise invalid('expected "none", "auto", "required" or {"type": "function", "function": {"name": "..."}}')

    def to_messages(self) -> tuple[ChatMessage, ...]:
        return tuple(message.to_message() for message in self.messages)

    def sampling(self) -> SamplingOptions:
        """As the base has it; `max_completion_tokens`, the newer name, wins over `max_tokens`."""
        options = super().sampling()
        if self.max_completion_tokens is not None:
            options["max_tokens"] = self.max_completion_tokens
        return options
