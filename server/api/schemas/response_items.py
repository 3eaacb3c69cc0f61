"""Items of the Responses API: what a client sends, what it is given and may send back, and what is kept of both.

An item is the same JSON wherever it stands, so a stored conversation is read as if the client had sent all of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, TypeAdapter, ValidationInfo, field_validator

from server.api.schemas.chat_messages import MAX_PARTS, Name
from server.api.schemas.tools import FunctionName
from server.api.schemas.wire import WireModel, invalid, only
from server.errors import InvalidRequest
from server.types import ChatMessage, ToolCall

MAX_ITEMS = 10_000
MAX_QUERIES = 64

ItemId = Annotated[str, Field(min_length=1, max_length=128)]
ItemStatus = Literal["in_progress", "searching", "completed", "incomplete", "failed"]


def new_item_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


# ---- content


class InputText(WireModel):
    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None


class OutputText(WireModel):
    """What we add to it ourselves may come back, and says nothing to the model."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(default_factory=list)]
    logprobs: Annotated[list[Any], Field(default_factory=list)]


class Refusal(WireModel):
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


Part = Annotated[InputText | OutputText | Refusal, Discriminator("type")]


class SummaryText(WireModel):
    type: Literal["summary_text"]
    text: str


class ReasoningText(WireModel):
    type: Literal["reasoning_text"]
    text: str


def _flatten_output(value: Any) -> Any:
    """Text parts of a function's output become one text, a line each, as in messages."""
    if not isinstance(value, list):
        return value
    if len(value) > MAX_PARTS:
        raise invalid(f"expected at most {MAX_PARTS} parts")
    return "\n".join(_text_of(part) for part in value)


def _text_of(part: Any) -> str:
    match part:
        case {"type": "input_text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind != "input_text":
            message = f"parts of type {kind[:40]!r} are not supported, only 'input_text'"
            raise invalid(message, code="unsupported_value")
    raise invalid('expected parts like {"type": "input_text", "text": "..."}', code="invalid_type")


# ---- items


class _Item(WireModel):
    id: ItemId | None = None
    status: ItemStatus | None = None


class MessageItem(_Item):
    type: Literal["message"]
    role: Literal["user", "system", "developer", "assistant"]
    content: Annotated[list[Part], FailFast(), Field(max_length=MAX_PARTS)]
    phase: Literal["commentary", "final_answer"] | None = None

    @field_validator("content", mode="before", json_schema_input_type=str | list[Part])
    @classmethod
    def _text_is_one_part(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        return [{"type": "output_text" if info.data.get("role") == "assistant" else "input_text", "text": value}]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)

    def to_message(self) -> ChatMessage:
        return ChatMessage(role=self.role, content=self.text)


class FunctionCallItem(_Item):
    type: Literal["function_call"]
    call_id: Name
    name: FunctionName
    arguments: str

    def to_call(self) -> ToolCall:
        return ToolCall(self.call_id, self.name, self.arguments)


class FunctionOutputItem(_Item):
    type: Literal["function_call_output"]
    call_id: Name
    output: Annotated[str, BeforeValidator(_flatten_output, json_schema_input_type=str | list[InputText])]
    name: FunctionName | None = None


class ReasoningItem(_Item):
    type: Literal["reasoning"]
    summary: Annotated[list[SummaryText], FailFast(), Field(default_factory=list, max_length=MAX_PARTS)]
    content: Annotated[list[ReasoningText], FailFast(), Field(default_factory=list, max_length=MAX_PARTS)]
    encrypted_content: Annotated[Any, only()] = None

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content or self.summary)


class FileSearchItem(_Item):
    """What an earlier answer rested on. Every answer finds sources of its own, so it says nothing to the model."""

    type: Literal["file_search_call"]
    queries: Annotated[list[str], Field(default_factory=list, max_length=MAX_QUERIES)]
    results: list[Any] | None = None
    x: dict[str, Any] | None = None


class ItemReference(WireModel):
    """Stands for an item that is kept."""

    type: Literal["item_reference"]
    id: ItemId


StoredInputItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem | FileSearchItem
_PREFIXES: dict[str, str] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "file_search_call": "fs",
}


def _name_type(value: Any) -> Any:
    """The type may be left out of messages and of references."""
    if not isinstance(value, dict) or value.get("type") is not None:
        return value
    return {**value, "type": "item_reference" if set(value) <= {"id", "type"} else "message"}


def _text_is_a_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


InputItem = Annotated[
    Annotated[StoredInputItem | ItemReference, Discriminator("type")],
    BeforeValidator(_name_type),
]
Input = Annotated[
    list[InputItem],
    FailFast(),
    Field(min_length=1, max_length=MAX_ITEMS),
    BeforeValidator(_text_is_a_message, json_schema_input_type=str | list[InputItem]),
]

_STORED: TypeAdapter[list[StoredInputItem]] = TypeAdapter(
    list[Annotated[StoredInputItem, Discriminator("type")]],
)


def read_stored(bodies: list[Any]) -> list[StoredInputItem]:
    """Items that are kept, from their JSON."""
    return _STORED.validate_python(bodies)


def item_body(item: StoredInputItem) -> dict[str, Any]:
    """An item as it is kept and listed: complete, with an id."""
    body = item.model_dump(exclude_none=True)
    return {**body, "id": item.id or new_item_id(_PREFIXES[item.type]), "status": item.status or "completed"}


# ---- the conversation that items make


@dataclass
class _Turn:
    """What the assistant says in one message: thoughts, then content, then calls."""

    reasoning: list[str] = field(default_factory=list)
    content: str | None = None
    calls: list[ToolCall] = field(default_factory=list)

    @property
    def has_spoken(self) -> bool:
        return self.content is not None or bool(self.calls)

    def end(self) -> Iterator[ChatMessage]:
        """Yield the message, if there is one: thoughts that led to nothing are none."""
        if self.has_spoken:
            yield ChatMessage(
                role="assistant",
                content=self.content or "",
                reasoning="\n".join(self.reasoning),
                tool_calls=tuple(self.calls),
            )


def to_messages(items: Iterable[StoredInputItem]) -> Iterator[ChatMessage]:
    """Make a conversation of items.

    Raises:
        InvalidRequest: An output belongs to no call before it.
    """
    turn, names = _Turn(), dict[str, str]()
    for item in items:
        match item:
            case FileSearchItem():
                pass
            case FunctionCallItem(status="incomplete"):
                pass  # cut: its arguments are no JSON, and nobody can have answered it
            case FunctionCallItem():
                turn.calls.append(item.to_call())
                names[item.call_id] = item.name
            case ReasoningItem() | MessageItem(role="assistant"):
                if turn.has_spoken:
                    yield from turn.end()
                    turn = _Turn()
                if isinstance(item, ReasoningItem):
                    turn.reasoning.append(item.text)
                else:
                    turn.content = item.text
            case MessageItem() | FunctionOutputItem():
                yield from turn.end()
                turn = _Turn()
                yield item.to_message() if isinstance(item, MessageItem) else _tool_message(item, names)
    yield from turn.end()


def _tool_message(item: FunctionOutputItem, names: dict[str, str]) -> ChatMessage:
    if item.call_id not in names:
        raise InvalidRequest(
            f"a function_call_output has the call_id {item.call_id[:64]!r}, but no function_call before it has; send "
            "that call too, or the previous_response_id of the response that made it",
            param="input",
        )
    return ChatMessage(role="tool", content=item.output, name=names[item.call_id], tool_call_id=item.call_id)
