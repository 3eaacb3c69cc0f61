"""The content blocks of Anthropic's messages, and what they come to as a conversation.

Blocks that need a model which sees, or tools that run on Anthropic's servers, are refused by the name of their type.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from msgspec import structs
from pydantic import BeforeValidator, Discriminator, FailFast, Field

from server.api.schemas.tools import FunctionName
from server.api.schemas.wire import WireModel
from server.services.grounding import GivenDocument
from server.types import ChatMessage, ToolCall

MAX_BLOCKS = 1024
FAILED = "Error: "
"""Goes before what a tool says where the client marks that as an error: templates have no other place for it."""

Id = Annotated[str, Field(min_length=1, max_length=256)]


class Block(WireModel):
    cache_control: dict[str, Any] | None = None
    """what prompts have in common is computed once in any case"""


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: list[Any] | None = None
    """of our own answers, when they come back"""


def _as_blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


TextBlocks = Annotated[
    list[TextBlock],
    FailFast(),
    Field(max_length=MAX_BLOCKS),
    BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock]),
]


def text_of(blocks: Sequence[TextBlock]) -> str:
    """A line each, as chat joins the parts of a message."""
    return "\n".join(block.text for block in blocks)


class PlainText(WireModel):
    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str

    @property
    def text(self) -> str:
        return self.data


class TextContent(WireModel):
    type: Literal["content"]
    content: TextBlocks

    @property
    def text(self) -> str:
        return text_of(self.content)


class CitationsConfig(WireModel):
    enabled: bool = False


class DocumentBlock(Block):
    type: Literal["document"]
    source: Annotated[PlainText | TextContent, Discriminator("type")]
    title: str = ""
    context: str = ""
    citations: CitationsConfig = CitationsConfig()

    @property
    def text(self) -> str:
        """As part of what the user says."""
        return "\n".join(text for text in (self.title, self.context, self.source.text) if text)

    def to_given(self, index: int) -> GivenDocument:
        """As something that the answer rests on and cites."""
        text = self.source.text
        fields = {"title": self.title, "context": self.context, "text": text}
        return GivenDocument(
            id=f"doc:{index}",
            title=" - ".join(each for each in (self.title, self.context) if each),
            text=text,
            fields={name: value for name, value in fields.items() if value},
        )


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: Id
    content: Annotated[TextBlocks, Field(default_factory=list)]
    is_error: bool = False

    def to_message(self, tool_name: str | None) -> ChatMessage:
        text = text_of(self.content)
        content = f"{FAILED}{text}" if self.is_error else text
        return ChatMessage(role="tool", content=content, tool_call_id=self.tool_use_id, name=tool_name)


class ThinkingBlock(WireModel):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(WireModel):
    """What another server has encrypted says nothing to a model here."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: Id
    name: FunctionName
    input: dict[str, Any]
    caller: dict[str, Any] | None = None

    def to_call(self) -> ToolCall:
        return ToolCall(self.id, self.name, json.dumps(self.input, ensure_ascii=False))  # spaced as models write it


UserBlock = Annotated[TextBlock | DocumentBlock | ToolResultBlock, Discriminator("type")]
AssistantBlock = Annotated[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Discriminator("type")]


class UserTurn(WireModel):
    role: Literal["user"]
    content: Annotated[
        list[UserBlock],
        FailFast(),
        Field(max_length=MAX_BLOCKS),
        BeforeValidator(_as_blocks, json_schema_input_type=str | list[UserBlock]),
    ]

    def to_messages(self, tool_names: dict[str, str]) -> Iterator[ChatMessage]:
        """A message for each result of a tool, and for what is said between them.

        Args:
            tool_names: The tool that each earlier call was of, by the id of the call.
        """
        said: list[str] = []
        for block in self.content:
            if isinstance(block, ToolResultBlock):
                if said:
                    yield ChatMessage(role="user", content="\n".join(said))
                said = []
                yield block.to_message(tool_names.get(block.tool_use_id))
            elif isinstance(block, TextBlock) or not block.citations.enabled:
                said.append(block.text)
        if said or not any(isinstance(block, ToolResultBlock) for block in self.content):
            yield ChatMessage(role="user", content="\n".join(said))


class AssistantTurn(WireModel):
    role: Literal["assistant"]
    content: Annotated[
        list[AssistantBlock],
        FailFast(),
        Field(max_length=MAX_BLOCKS),
        BeforeValidator(_as_blocks, json_schema_input_type=str | list[AssistantBlock]),
    ]

    def to_messages(self, tool_names: dict[str, str]) -> Iterator[ChatMessage]:
        """One message, in which the texts between calls follow each other. Notes its calls in `tool_names`."""
        calls = tuple(block.to_call() for block in self.content if isinstance(block, ToolUseBlock))
        tool_names.update({call.id: call.name for call in calls})
        yield ChatMessage(
            role="assistant",
            content="".join(block.text for block in self.content if isinstance(block, TextBlock)),
            reasoning="".join(block.thinking for block in self.content if isinstance(block, ThinkingBlock)),
            tool_calls=calls,
        )


class SystemTurn(WireModel):
    role: Literal["system"]
    content: TextBlocks

    def to_messages(self, _tool_names: dict[str, str]) -> Iterator[ChatMessage]:
        yield ChatMessage(role="system", content=text_of(self.content))


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Discriminator("role")]


def conversation(system: Sequence[TextBlock], turns: Sequence[Turn]) -> tuple[ChatMessage, ...]:
    """The messages of a model's chat template. Neighbours of one role are one turn, as Anthropic has it."""
    tool_names: dict[str, str] = {}
    instructions = text_of(system)
    messages = [ChatMessage(role="system", content=instructions)] if instructions else []
    said = (message for turn in turns for message in turn.to_messages(tool_names))
    for role, group in itertools.groupby(said, key=lambda message: message.role):
        neighbours = list(group)
        messages += [_joined(neighbours)] if role in ("user", "assistant") else neighbours
    return tuple(messages)


def documents_of(turns: Sequence[Turn]) -> list[DocumentBlock]:
    return [
        block
        for turn in turns
        if isinstance(turn, UserTurn)
        for block in turn.content
        if isinstance(block, DocumentBlock)
    ]


def _joined(messages: Sequence[ChatMessage]) -> ChatMessage:
    """One message of several of one role; all at once, as joining them one by one is quadratic in their length."""
    first, *others = messages
    if not others:
        return first
    return structs.replace(
        first,
        content="\n".join(message.content for message in messages if message.content),
        reasoning="\n".join(message.reasoning for message in messages if message.reasoning),
        tool_calls=tuple(call for message in messages for call in message.tool_calls),
    )
