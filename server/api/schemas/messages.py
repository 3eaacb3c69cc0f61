"""The bodies of Anthropic's `POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import AfterValidator, BeforeValidator, Discriminator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.chat_messages import MAX_MESSAGES
from server.api.schemas.message_blocks import AssistantTurn, TextBlocks, Turn, conversation, documents_of
from server.api.schemas.sampling import MAX_INT32, check_stops
from server.api.schemas.tools import MAX_TOOLS, FunctionName, check_parameters, check_unique
from server.api.schemas.wire import IGNORED, ModelName, WireModel, invalid, only
from server.services.generation import SamplingOptions
from server.services.grounding import Grounding
from server.types import NO_TOOLS, ChatPrompt, Grammar, ReasoningEffort, Tool, ToolUse

MIN_BUDGET = 1024
MEDIUM_BUDGET, HIGH_BUDGET = 4096, 16_384
"""Thinking budgets from which on the effort is medium or high: models are told an effort, not a number."""

FORMAT = "output_config.format"
KEEP_THOUGHTS = {"type": "clear_thinking_20251015", "keep": "all"}
"""What Claude Code asks of every server, and what is done here in any case."""


def _check_is_custom(tool: Any) -> Any:
    if isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and kind != "custom":
        raise invalid(f"tools of type {kind[:40]!r} are not supported, only those with an input_schema")
    return tool


class CustomTool(WireModel):
    """A function of the client. What says how it is streamed or cached changes nothing here."""

    type: Literal["custom"] = "custom"
    name: FunctionName
    description: str = ""
    input_schema: Annotated[dict[str, Any], BeforeValidator(check_parameters)]
    strict: bool = False
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool = False
    defer_loading: Annotated[Any, only(False)] = False
    allowed_callers: Annotated[Any, only(["direct"])] = None
    input_examples: Annotated[Any, only([])] = None

    def to_tool(self) -> Tool:
        schema = {"type": "object", "properties": {}, **self.input_schema}
        parameters = orjson.dumps(schema).decode()
        return Tool(name=self.name, description=self.description, strict=self.strict, parameters=parameters)


def _check_names(tools: list[CustomTool]) -> list[CustomTool]:
    check_unique([tool.name for tool in tools])
    return tools


class AutoChoice(WireModel):
    type: Literal["auto"]
    disable_parallel_tool_use: bool = False


class AnyChoice(WireModel):
    type: Literal["any"]
    disable_parallel_tool_use: bool = False


class NamedChoice(WireModel):
    type: Literal["tool"]
    name: FunctionName
    disable_parallel_tool_use: bool = True


class NoChoice(WireModel):
    type: Literal["none"]


class ThinkingOn(WireModel):
    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=MIN_BUDGET, le=MAX_INT32)]
    display: Literal["summarized", "omitted"] = "summarized"

    @property
    def effort(self) -> ReasoningEffort:
        if self.budget_tokens < MEDIUM_BUDGET:
            return "low"
        return "medium" if self.budget_tokens < HIGH_BUDGET else "high"


class ThinkingAdaptive(WireModel):
    """The model thinks as it does by itself."""

    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] = "summarized"

    @property
    def effort(self) -> None:
        return None


class ThinkingOff(WireModel):
    type: Literal["disabled"]

    @property
    def effort(self) -> ReasoningEffort:
        return "none"


class SchemaFormat(WireModel):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]

    def to_grammar(self) -> Grammar:
        return Grammar("json_schema", orjson.dumps(self.schema_).decode(), f"{FORMAT}.schema")


class OutputConfig(WireModel):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaFormat | None = None


class Metadata(WireModel):
    user_id: str = ""


class CountTokensRequest(WireModel):
    """What makes a prompt, and with it whatever else the SDKs send to be counted."""

    model: ModelName
    """id or alias of a chat model or a RAG model; required"""
    messages: Annotated[list[Turn], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)]
    """1 to 10,000; see below; required"""
    system: Annotated[TextBlocks, Field(default_factory=list)]
    """a string or text blocks"""
    tools: Annotated[
        list[Annotated[CustomTool, BeforeValidator(_check_is_custom)]],
        FailFast(),
        Field(default_factory=list, max_length=MAX_TOOLS),
        AfterValidator(_check_names),
    ]
    """up to 128, of different names: `name`, `description`, `input_schema`, `strict`; `eager_input_streaming` changes
    nothing; `defer_loading`, `allowed_callers` and `input_examples` only as they are by default. Tools with another
    `type` than `custom` (web search, bash, computer use, …) are refused by that name"""
    tool_choice: Annotated[AutoChoice | AnyChoice | NamedChoice | NoChoice, Discriminator("type")] | None = None
    """`auto`, `any`, `tool` (one call of it, unless `disable_parallel_tool_use` is `false`), `none`; enforced as in
    [tools](#tools); default: `auto`"""
    thinking: Annotated[ThinkingOn | ThinkingAdaptive | ThinkingOff, Discriminator("type")] | None = None
    """`enabled`, `adaptive`, `disabled`, as an effort; see [thinking](#thinking)"""
    output_config: OutputConfig = OutputConfig()
    """`effort`, see [thinking](#thinking); `format`: a JSON schema that the answer satisfies, see [structured
    output](#structured-output)"""
    output_format: SchemaFormat | None = None
    """what `output_config.format` was called before"""
    cache_control: Annotated[dict[str, Any] | None, IGNORED] = None
    """here, in blocks and in tools: what prompts have in common is computed once in any case"""
    speed: Annotated[Any, only("standard")] = None

    @field_validator("messages", mode="after")
    @classmethod
    def _can_be_answered(cls, turns: list[Turn]) -> list[Turn]:
        begun = list(itertools.takewhile(lambda turn: isinstance(turn, AssistantTurn), reversed(turns)))
        if any(block.type != "text" for turn in begun for block in turn.content):
            raise invalid("the last one is the beginning of the answer, so it can have blocks of text only")
        if len(begun) == len(turns):
            raise invalid("expected a message before the beginning of the answer")
        return turns

    @field_validator("tool_choice", mode="after")
    @classmethod
    def _is_possible(cls, choice: Any, info: ValidationInfo) -> Any:
        names = [tool.name for tool in info.data.get("tools", ())]
        if isinstance(choice, AnyChoice | NamedChoice) and not names:
            raise invalid("it needs tools, and the request has none", code="unsupported_parameter")
        if isinstance(choice, NamedChoice) and choice.name not in names:
            raise invalid(f"it names {choice.name!r}, which is not among the tools: {', '.join(names)[:200]}")
        return choice

    @field_validator("output_format", mode="after")
    @classmethod
    def _says_it_once(cls, value: SchemaFormat | None, info: ValidationInfo) -> SchemaFormat | None:
        if value and (config := info.data.get("output_config")) and config.format:
            raise invalid(f"it cannot be combined with {FORMAT}, its newer name")
        return value

    @field_validator("output_config", "output_format", mode="after")
    @classmethod
    def _begins_by_itself(cls, value: Any, info: ValidationInfo) -> Any:
        wants_format = value.format if isinstance(value, OutputConfig) else value
        if wants_format and _continues(info.data.get("messages", ())):
            raise invalid("a format cannot be combined with a last message that is the beginning of the answer")
        return value

    def to_prompt(self) -> ChatPrompt:
        return ChatPrompt(
            conversation(self.system, self.messages),
            self._tool_use(),
            self._effort(),
            continues_last=_continues(self.messages),
        )

    def _tool_use(self) -> ToolUse:
        choice = self.tool_choice
        if not self.tools or isinstance(choice, NoChoice):
            return NO_TOOLS
        tools = tuple(tool.to_tool() for tool in self.tools)
        return ToolUse(
            tools=tools,
            names=(choice.name,) if isinstance(choice, NamedChoice) else tuple(tool.name for tool in tools),
            is_required=isinstance(choice, AnyChoice | NamedChoice),
            is_parallel=choice is None or not choice.disable_parallel_tool_use,
        )

    def _effort(self) -> ReasoningEffort | None:
        """What is said of effort goes before what follows from a budget; no thinking is no thinking."""
        wanted = self.output_config.effort
        if self.thinking and (wanted is None or isinstance(self.thinking, ThinkingOff)):
            return self.thinking.effort
        return "xhigh" if wanted == "max" else wanted


class MessageRequest(CountTokensRequest):
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT32)]
    """1 or more; required"""
    temperature: Annotated[float | None, Field(ge=0, le=1)] = None
    """0 to 1; 0 is greedy; default: the model's"""
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """0 to 1; default: the model's"""
    top_k: Annotated[int | None, Field(ge=0, le=MAX_INT32)] = None
    """0 or more; 0 is off"""
    stop_sequences: Annotated[
        tuple[str, ...] | None, BeforeValidator(check_stops, json_schema_input_type=list[str])
    ] = None
    """up to 4, each of 1 to 512 bytes"""
    stream: bool = False
    """see [streams](#streams-of-messages)"""

    # Known, but honoured only where they change nothing.
    container: Annotated[Any, only()] = None
    context_management: Annotated[Any, only({"edits": []}, {"edits": [KEEP_THOUGHTS]})] = None
    diagnostics: Annotated[Any, only()] = None
    inference_geo: Annotated[Any, only()] = None
    mcp_servers: Annotated[Any, only([])] = None
    user_profile_id: Annotated[Any, only()] = None
    workspace_id: Annotated[Any, only()] = None

    # Known, and without influence on the answer.
    metadata: Annotated[Metadata, IGNORED] = Metadata()
    """`user_id`; nothing is stored"""
    service_tier: Annotated[Literal["auto", "standard_only"], IGNORED] = "auto"
    """there is one"""

    @field_validator("max_tokens", mode="after")
    @classmethod
    def _exceeds_budget(cls, max_tokens: int, info: ValidationInfo) -> int:
        thinking = info.data.get("thinking")
        if isinstance(thinking, ThinkingOn) and thinking.budget_tokens >= max_tokens:
            raise invalid(f"expected more than thinking.budget_tokens, which is {thinking.budget_tokens}")
        return max_tokens

    @field_validator("messages", mode="after")
    @classmethod
    def _cites_all_or_none(cls, turns: list[Turn]) -> list[Turn]:
        documents = documents_of(turns)
        cited = [document for document in documents if document.citations.enabled]
        if cited and len(cited) < len(documents):
            raise invalid("expected citations to be enabled for all documents or for none")
        if not all(document.source.text.strip() for document in cited):
            raise invalid("expected documents with text, where citations are enabled")
        return turns

    def sampling(self) -> SamplingOptions:
        """What the request names itself."""
        named = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": self.stop_sequences,
        }
        return cast(SamplingOptions, {name: value for name, value in named.items() if value is not None})

    def text_grammar(self) -> Grammar | None:
        """What the answer has to be; None if anything will do."""
        wanted = self.output_config.format or self.output_format
        return wanted.to_grammar() if wanted else None

    @property
    def num_documents(self) -> int:
        return len(documents_of(self.messages))

    @property
    def shows_thinking(self) -> bool:
        return not isinstance(self.thinking, ThinkingOn | ThinkingAdaptive) or self.thinking.display != "omitted"

    def grounding(self) -> Grounding | None:
        """The documents that shall be cited; None if there are none."""
        documents = documents_of(self.messages)
        cited = tuple(each.to_given(index) for index, each in enumerate(documents) if each.citations.enabled)
        return Grounding(documents=cited) if cited else None


def _continues(turns: Sequence[Turn]) -> bool:
    return bool(turns) and isinstance(turns[-1], AssistantTurn)
