"""The body of `POST /v1/responses`, and the queries of what is kept of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Discriminator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.chat import JsonObjectFormat, NamedSchema, TextFormat
from server.api.schemas.files import Order
from server.api.schemas.grounding import FileSearchTool
from server.api.schemas.response_items import Input
from server.api.schemas.sampling import MAX_INT32, MAX_TOP_LOGPROBS, SamplingFields, StreamOptions
from server.api.schemas.tools import (
    MAX_TOOLS,
    FunctionDefinition,
    FunctionTool,
    ToolChoice,
    check_choice,
    check_names,
    to_tool_use,
)
from server.api.schemas.vector_stores import Id, Metadata
from server.api.schemas.wire import IGNORED, ModelName, TextInteger, WireModel, invalid, only
from server.rag.paging import MAX_LIMIT
from server.services.generation import SamplingOptions
from server.services.grounding import Grounding
from server.types import ChatMessage, ChatPrompt, Grammar, ReasoningEffort

TEXT_FORMAT = "text.format"
SEARCH_RESULTS = "file_search_call.results"
LOGPROBS = "message.output_text.logprobs"
_SEARCH = {"type": "file_search"}

_PARAMS = {ChatPrompt.param: "input", "reasoning_effort": "reasoning.effort", "logprobs": "include"}
"""What chat calls them, and what they are called here."""

_EXPECTED_CHOICE = (
    'expected "none", "auto", "required", {"type": "function", "name": "..."}, {"type": "file_search"} or'
    ' {"type": "allowed_tools", "mode": "auto" or "required", "tools": [...]}'
)


class ResponseFunction(FunctionDefinition):
    """Chat's, without the object around it."""

    type: Literal["function"]
    allowed_callers: Annotated[Any, only(["direct"])] = None
    async_: Annotated[Any, only(False), Field(alias="async")] = None
    defer_loading: Annotated[Any, only(False)] = None
    output_schema: Annotated[Any, only()] = None

    def as_in_chat(self) -> FunctionTool:
        return FunctionTool(type="function", function=self)

    def body(self) -> dict[str, Any]:
        return {**self.model_dump(exclude_unset=True, by_alias=True), "strict": self.strict}


def _check_flat(tool: Any) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        raise invalid('expected {"type": "function", "name": ..., "parameters": ...} without "function" inside')
    return tool


ResponseTool = Annotated[
    Annotated[ResponseFunction | FileSearchTool, Discriminator("type")],
    BeforeValidator(_check_flat),
]


def _functions_among(tools: Sequence[ResponseTool]) -> list[FunctionTool]:
    return [tool.as_in_chat() for tool in tools if isinstance(tool, ResponseFunction)]


def _check_tools(tools: list[ResponseTool]) -> list[ResponseTool]:
    functions = check_names(_functions_among(tools))
    if len(tools) - len(functions) > 1:
        raise invalid("expected one 'file_search' at most; it takes several vector stores")
    return tools


def _split_choice(choice: ToolChoice) -> tuple[ToolChoice, bool]:
    """What it says of functions, in chat's words, and whether files are searched."""
    match choice:
        case "none":
            return "none", False
        case "auto" | "required":
            return choice, True
        case {"type": "file_search"}:
            return "none", True
        case {"type": "function", "name": str(name)}:
            return _named(name), True
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": [_, *_] as tools}:
            names = [_name_in(tool) for tool in tools if tool != _SEARCH]
            allowed = {"mode": mode, "tools": [_named(name) for name in names]}
            functions: ToolChoice = {"type": "allowed_tools", "allowed_tools": allowed} if names else "none"
            return functions, _SEARCH in tools
    raise invalid(_EXPECTED_CHOICE)


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _name_in(tool: Any) -> str:
    match tool:
        case {"type": "function", "name": str(name)}:
            return name
    raise invalid(_EXPECTED_CHOICE)


def _names_search(choice: ToolChoice) -> bool:
    match choice:
        case {"type": "file_search"}:
            return True
        case {"type": "allowed_tools", "tools": tools}:
            return _SEARCH in tools
    return False


class SchemaFormat(NamedSchema):
    type: Literal["json_schema"]


class TextOptions(WireModel):
    """`format` is chat's `response_format`, flat."""

    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Discriminator("type")] = TextFormat(type="text")
    verbosity: Annotated[Any, only("medium")] = "medium"

    def to_grammar(self) -> Grammar | None:
        match self.format:
            case JsonObjectFormat():
                return Grammar("json_object", "", TEXT_FORMAT)
            case SchemaFormat(schema_=schema):
                return Grammar("json_schema", orjson.dumps(schema).decode(), TEXT_FORMAT)
        return None

    def body(self) -> dict[str, Any]:
        return {
            "format": {"type": self.format.type, **self.format.model_dump(exclude_unset=True, by_alias=True)},
            "verbosity": self.verbosity,
        }


class ReasoningOptions(WireModel):
    """Nobody sums reasoning up here: it is given as it is."""

    effort: ReasoningEffort | None = None
    summary: Annotated[Any, only("auto")] = None
    generate_summary: Annotated[Any, only("auto")] = None
    context: Annotated[Any, only("auto")] = None
    mode: Annotated[Any, only("standard")] = None


Included = Literal[
    "file_search_call.results",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",  # the reasoning stands in the item itself
    # Of items that no response has here.
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponseRequest(SamplingFields):
    model: ModelName
    """id or alias of a chat model or a RAG model; required"""
    input: Input
    """a text, which is a message of the user, or 1 to 10,000 [items](#items); required"""
    instructions: str | None = None
    """a system message before all else; not carried over to responses that go on from this one"""
    previous_response_id: Id | None = None
    """of a [stored](#stored-responses) response, whose conversation goes on"""
    max_output_tokens: Annotated[int | None, Field(ge=1, le=MAX_INT32)] = None
    """1 or more; default: the model's, else until the context is full; wins over `max_tokens`, which is taken too"""
    text: TextOptions = TextOptions()
    """`format`: `text`, `json_object`, or `{"type": "json_schema", "name", "schema", "strict"}`, see [structured
    output](#structured-output); `verbosity`: only `medium`"""
    tools: Annotated[
        list[ResponseTool], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS), AfterValidator(_check_tools)
    ]
    """up to 128: functions of different names, `{"type": "function", "name", "parameters", "strict"}`, see
    [tools](#tools); one `file_search`, see [grounded answers](#grounded-answers). `strict` is `false` by default.
    OpenAI's other tools are refused"""
    tool_choice: ToolChoice = "auto"
    """`none`, `auto`, `required`, `{"type": "function", "name"}`, `{"type": "file_search"}`, or `{"type":
    "allowed_tools", "mode", "tools"}`; default `auto`. Files are searched unless it is `none`, or allows other tools
    only"""
    parallel_tool_calls: bool = True
    """default `true`"""
    reasoning: ReasoningOptions = ReasoningOptions()
    """`effort` is chat's `reasoning_effort`; `summary` and `generate_summary` only `auto`: the reasoning itself is
    given; `context` only `auto`, `mode` only `standard`"""
    include: Annotated[list[Included], FailFast(), Field(default_factory=list, max_length=16)]
    """`file_search_call.results` adds the sources to a search, `message.output_text.logprobs` the log probabilities to
    a text; what else OpenAI knows adds nothing"""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """0 to 20 of the likeliest tokens in the place of each; needs `message.output_text.logprobs` in `include`"""
    store: bool = True
    """default `true`: the response is [stored](#stored-responses), with what was sent for it"""
    metadata: Annotated[Metadata, Field(default_factory=dict)]
    """up to 16 texts, given back with the response"""

    stream: bool = False
    """see [events of a response](#events-of-a-response)"""

    # Known, but honoured only where they change nothing.
    background: Annotated[Any, only(False)] = None
    truncation: Annotated[Any, only("disabled")] = None
    """a conversation that is too long is refused with `context_length_exceeded`; nothing is dropped in silence"""
    ignore_eos: Annotated[Any, only(False)] = None
    access_programs: Annotated[Any, only()] = None
    background_options: Annotated[Any, only()] = None
    context_management: Annotated[Any, only([])] = None
    """nothing is compacted"""
    conversation: Annotated[Any, only()] = None
    """conversations go on by `previous_response_id`"""
    image: Annotated[Any, only()] = None
    moderation: Annotated[Any, only()] = None
    prompt: Annotated[Any, only()] = None
    """no prompts are stored"""

    # Known, and without influence on the answer.
    stream_options: Annotated[StreamOptions, IGNORED] = StreamOptions()
    """the last event has the usage in any case"""
    max_tool_calls: Annotated[int | None, Field(ge=1), IGNORED] = None
    """files are searched once; functions are the client's to call"""
    user: Annotated[str | None, IGNORED] = None
    """given back"""
    safety_identifier: Annotated[str | None, IGNORED] = None
    """given back"""
    prompt_cache_key: Annotated[str | None, IGNORED] = None
    """given back; what prompts have in common is computed once in any case"""
    prompt_cache_options: Annotated[dict[str, Any] | None, IGNORED] = None
    """what prompts have in common is computed once in any case"""
    prompt_cache_retention: Annotated[str | None, IGNORED] = None
    """what prompts have in common is computed once in any case"""
    service_tier: Annotated[str | None, IGNORED] = None
    """there is one, `default`"""

    @field_validator("top_logprobs", mode="after")
    @classmethod
    def _is_asked_for(cls, count: int, info: ValidationInfo) -> int:
        if count and LOGPROBS not in info.data.get("include", [LOGPROBS]):
            raise invalid(f'it needs "{LOGPROBS}" in include')
        return count

    @field_validator("tool_choice", mode="after")
    @classmethod
    def _is_possible(cls, choice: ToolChoice, info: ValidationInfo) -> ToolChoice:
        tools = info.data.get("tools", ())
        functions = _functions_among(tools)
        has_search = len(functions) < len(tools)
        of_functions, _ = _split_choice(choice)
        if _names_search(choice) and not has_search:
            raise invalid("it names 'file_search', which is not among the tools")
        if of_functions not in ("none", "auto") and not (of_functions == "required" and has_search):
            check_choice(of_functions, functions)
        return choice

    def to_prompt(self, conversation: tuple[ChatMessage, ...]) -> ChatPrompt:
        """What the model is asked, which is the conversation up to the end of `input`."""
        choice, _ = _split_choice(self.tool_choice)
        instructions = (ChatMessage(role="system", content=self.instructions),) if self.instructions else ()
        functions = _functions_among(self.tools)
        use = to_tool_use(functions, choice, is_parallel=self.parallel_tool_calls)
        return ChatPrompt((*instructions, *conversation), use, self.reasoning.effort)

    def grounding(self) -> Grounding | None:
        """What the answer shall rest on; None: on nothing in particular. Raises InvalidRequest for a wrong filter."""
        _, searches = _split_choice(self.tool_choice)
        for index, tool in enumerate(self.tools):
            if searches and isinstance(tool, FileSearchTool):
                return tool.grounding((), param=f"tools[{index}].filters")
        return None

    def sampling(self) -> SamplingOptions:
        """As the base has it; `max_output_tokens`, OpenAI's name in this API, wins over `max_tokens`."""
        options = super().sampling()
        if self.max_output_tokens is not None:
            options["max_tokens"] = self.max_output_tokens
        return options

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if LOGPROBS in self.include else None

    @property
    def wants_results(self) -> bool:
        return SEARCH_RESULTS in self.include

    def param_of(self, chat_param: str | None) -> str | None:
        """The field of this request that corresponds to one of chat, which the layers below know."""
        if chat_param in _PARAMS:
            return _PARAMS[chat_param]
        if chat_param and (found := re.fullmatch(r"tools\[(\d+)\]\.function\.(.+)", chat_param)):
            indices = [index for index, tool in enumerate(self.tools) if isinstance(tool, ResponseFunction)]
            return f"tools[{indices[int(found[1])]}].{found[2]}"
        return chat_param

    def body(self) -> dict[str, Any]:
        """What a response repeats of its request."""
        return {
            "background": False,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata,
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": self.reasoning.effort, "summary": self.reasoning.summary},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.store,
            "temperature": self.temperature,
            "text": self.text.body(),
            "tool_choice": self.tool_choice,
            "tools": [_tool_body(tool) for tool in self.tools],
            "top_logprobs": self.top_logprobs,
            "top_p": self.top_p,
            "truncation": "disabled",
            "user": self.user,
        }


def _tool_body(tool: ResponseTool) -> dict[str, Any]:
    return tool.body() if isinstance(tool, ResponseFunction) else tool.model_dump(exclude_unset=True)


class RetrieveQuery(WireModel):
    """`GET /v1/responses/{response_id}`. Lists come with brackets behind their name, as the SDK writes them."""

    include: Included | None = None
    include_list: Annotated[Included | None, Field(alias="include[]")] = None
    include_obfuscation: str = ""
    stream: Annotated[Any, only("false")] = None
    starting_after: Annotated[Any, only()] = None


class InputItemsQuery(WireModel):
    """`GET /v1/responses/{response_id}/input_items`."""

    limit: Annotated[TextInteger, Field(ge=1, le=MAX_LIMIT)] = 20
    order: Order = "desc"
    after: str | None = None
    include: Included | None = None
    include_list: Annotated[Included | None, Field(alias="include[]")] = None
