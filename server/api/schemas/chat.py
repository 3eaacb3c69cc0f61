"""The body of `POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Discriminator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.chat_messages import MAX_MESSAGES, Content, Message, check_begun, check_flag, continues
from server.api.schemas.grounding import Documents, FileSearchTool
from server.api.schemas.sampling import MAX_CHOICES, MAX_INT32, MAX_TOP_LOGPROBS, SamplingFields
from server.api.schemas.tools import MAX_TOOLS, FunctionTool, ToolChoice, check_choice, check_names, to_tool_use
from server.api.schemas.wire import IGNORED, ModelName, WireModel, invalid, only
from server.services.generation import SamplingOptions
from server.services.grounding import Grounding
from server.types import ChatPrompt, Grammar, ReasoningEffort, TemplateOption

MAX_TEMPLATE_OPTIONS = 32
MAX_OPTION_CHARS = 1024
RESPONSE_FORMAT = "response_format"


def _check_option(value: TemplateOption) -> TemplateOption:
    if isinstance(value, str) and len(value) > MAX_OPTION_CHARS:
        raise invalid(f"expected at most {MAX_OPTION_CHARS} characters")
    return value


TemplateOptionName = Annotated[str, Field(min_length=1, max_length=64)]
TemplateOptionValue = Annotated[TemplateOption, AfterValidator(_check_option)]


class TextFormat(WireModel):
    type: Literal["text"]

    def to_grammar(self) -> Grammar | None:
        return None


class JsonObjectFormat(WireModel):
    type: Literal["json_object"]

    def to_grammar(self) -> Grammar | None:
        return Grammar("json_object", "", RESPONSE_FORMAT)


class NamedSchema(WireModel):
    """`strict` changes nothing: every schema is enforced, or refused."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    schema_: Annotated[dict[str, Any], Field(default_factory=dict, alias="schema")]
    strict: bool = False


class JsonSchemaFormat(WireModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema

    def to_grammar(self) -> Grammar | None:
        return Grammar("json_schema", orjson.dumps(self.json_schema.schema_).decode(), RESPONSE_FORMAT)


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class GrammarDefinition(WireModel):
    type: Literal["lark", "regex", "gbnf"]
    definition: Annotated[str, Field(min_length=1)]

    def to_grammar(self) -> Grammar:
        return Grammar(self.type, self.definition, "grammar")


def _read_grammar(value: Any) -> Any:
    """A bare text is Lark or, if it defines rules as GBNF does, GBNF: what `grammar` is to llama.cpp's own server."""
    if isinstance(value, str):
        return {"type": "gbnf" if "::=" in value else "lark", "definition": value}
    return value


class Prediction(WireModel):
    type: Literal["content"]
    content: Content


AnyTool = Annotated[FunctionTool | FileSearchTool, Discriminator("type")]


def _functions_among(tools: Sequence[AnyTool]) -> list[FunctionTool]:
    return [tool for tool in tools if isinstance(tool, FunctionTool)]


def _check_tools(tools: list[AnyTool]) -> list[AnyTool]:
    functions = check_names(_functions_among(tools))
    if len(tools) - len(functions) > 1:
        raise invalid("expected one 'file_search' at most; it takes several vector stores")
    return tools


def _is_search(choice: ToolChoice | None) -> bool:
    """Whether no function may be called."""
    return choice == {"type": "file_search"}


def _is_idle(choice: ToolChoice, functions: Sequence[FunctionTool]) -> bool:
    """Whether it chooses among no functions: files are searched in any case."""
    return not functions and choice in ("auto", "required")


class ChatRequest(SamplingFields):
    model: ModelName
    """id or alias of a chat model or a RAG model; required"""
    messages: Annotated[
        list[Message], FailFast(), Field(min_length=1, max_length=MAX_MESSAGES), AfterValidator(check_begun)
    ]
    """1 to 10,000; see below; required"""
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_INT32)] = None
    """`max_tokens` under its newer name, which wins"""
    tools: Annotated[
        list[AnyTool], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS), AfterValidator(_check_tools)
    ]
    """up to 128, functions of different names (see [tools](#tools)) and one `file_search` (see [grounded
    answers](#grounded-answers))"""
    documents: Documents = ()
    """as in Cohere and vLLM; see [grounded answers](#grounded-answers)"""
    tool_choice: ToolChoice | None = None
    """`none`, `auto`, `required`, one named function, or `allowed_tools`; default: `auto` where there are tools; with
    `file_search` also `{"type": "file_search"}`, see [grounded answers](#grounded-answers)"""
    parallel_tool_calls: bool = True
    """default `true`"""
    reasoning_effort: ReasoningEffort | None = None
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, as far as the model's template can tell it; else
    `unsupported_value`; see [reasoning](#reasoning)"""
    chat_template_kwargs: Annotated[
        dict[TemplateOptionName, TemplateOptionValue], Field(default_factory=dict, max_length=MAX_TEMPLATE_OPTIONS)
    ]
    """extension, as in vLLM: up to 32 numbers, flags or short texts for variables that the model's template reads;
    others are refused by name"""
    response_format: Annotated[ResponseFormat, Discriminator("type")] | None = None
    """`text`, `json_object`, `json_schema`; see [structured output](#structured-output)"""
    grammar: Annotated[
        GrammarDefinition | None, BeforeValidator(_read_grammar, json_schema_input_type=str | GrammarDefinition)
    ] = None
    """extension: a regular expression, a Lark or a GBNF grammar that the answer has to be; see [structured
    output](#structured-output)"""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    """1 to 16 choices, see [several choices](#several-choices); only 1 with `documents`, `file_search` or a RAG
    model"""
    logprobs: bool = False
    """see [log probabilities](#log-probabilities)"""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """0 to 20; see [log probabilities](#log-probabilities)"""
    prediction: Prediction | None = None
    """`{"type": "content", "content": …}`: what the answer will probably say; see [predictions](#predictions)"""
    timings: bool = False
    """extension: `true` adds [timings](#timings)"""
    continue_final_message: bool | None = None
    """as in vLLM; only what the last message says anyway: `true` where it is the assistant's"""
    add_generation_prompt: bool | None = None
    """as in vLLM; only the reverse of `continue_final_message`"""

    # Known, but honoured only where they change nothing.
    modalities: Annotated[Any, only(["text"])] = None
    verbosity: Annotated[Any, only("medium")] = None
    functions: Annotated[Any, only([])] = None
    """deprecated; use `tools`"""
    function_call: Annotated[Any, only("none")] = None
    """deprecated; use `tool_choice`"""
    audio: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    moderation: Annotated[Any, only()] = None

    # Known, and without influence on the answer.
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""
    metadata: Annotated[dict[str, Any] | None, IGNORED] = None
    """nothing is stored"""
    store: Annotated[bool, IGNORED] = False
    """nothing is stored"""
    service_tier: Annotated[str, IGNORED] = "auto"
    """there is one"""
    prompt_cache_key: Annotated[str, IGNORED] = ""
    """what prompts have in common is computed once in any case"""
    prompt_cache_options: Annotated[dict[str, Any] | None, IGNORED] = None
    """what prompts have in common is computed once in any case"""
    prompt_cache_retention: Annotated[str, IGNORED] = ""
    """what prompts have in common is computed once in any case"""
    safety_identifier: Annotated[str, IGNORED] = ""
    """nothing is stored"""

    @field_validator("continue_final_message", "add_generation_prompt", mode="after")
    @classmethod
    def _says_what_is_done(cls, flag: bool | None, info: ValidationInfo) -> bool | None:
        return check_flag(flag, info)

    @field_validator("tool_choice", mode="after")
    @classmethod
    def _is_possible(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        tools = info.data.get("tools", ())
        functions = _functions_among(tools)
        has_search = len(functions) < len(tools)
        if _is_search(choice) and not has_search:
            raise invalid("it names 'file_search', which is not among the tools")
        if choice is None or _is_search(choice) or (has_search and _is_idle(choice, functions)):
            return choice
        return check_choice(choice, functions)

    @field_validator("tools", mode="after")
    @classmethod
    def _may_end(cls, tools: list[AnyTool], info: ValidationInfo) -> list[AnyTool]:
        if _functions_among(tools) and info.data.get("ignore_eos"):
            raise invalid("functions cannot be combined with ignore_eos")
        return tools

    @field_validator("response_format", "grammar", mode="after")
    @classmethod
    def _stands_alone(
        cls, value: ResponseFormat | GrammarDefinition | None, info: ValidationInfo
    ) -> ResponseFormat | GrammarDefinition | None:
        if value and value.to_grammar():
            if info.data.get("ignore_eos"):
                raise invalid("it cannot be combined with ignore_eos")
            if info.field_name == "grammar" and (other := info.data.get("response_format")) and other.to_grammar():
                raise invalid("it cannot be combined with response_format")
        return value

    @field_validator("top_logprobs", mode="after")
    @classmethod
    def _is_asked_for(cls, count: int, info: ValidationInfo) -> int:
        if count and info.data.get("logprobs") is False:
            raise invalid("it needs logprobs to be true")
        return count

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def text_grammar(self) -> Grammar | None:
        """What the answer has to be; None if anything will do."""
        wanted = self.grammar or self.response_format
        return wanted.to_grammar() if wanted else None

    def to_prompt(self) -> ChatPrompt:
        choice = self.tool_choice or "auto"
        functions = [] if _is_search(choice) else _functions_among(self.tools)
        return ChatPrompt(
            tuple(message.to_message() for message in self.messages),
            to_tool_use(functions, choice, is_parallel=self.parallel_tool_calls),
            self.reasoning_effort,
            self.chat_template_kwargs,
            continues_last=continues(self.messages),
        )

    def grounding(self) -> Grounding | None:
        """What the answer shall rest on; None: on nothing in particular. Raises InvalidRequest for a wrong filter."""
        index, search = next(
            ((index, tool) for index, tool in enumerate(self.tools) if isinstance(tool, FileSearchTool)), (0, None)
        )
        if search is not None and self.tool_choice != "none":
            return search.grounding(self.documents, param=f"tools[{index}].filters")
        return Grounding(documents=self.documents) if self.documents else None

    def sampling(self) -> SamplingOptions:
        """As the base has it; `max_completion_tokens`, the newer name, wins over `max_tokens`."""
        options = super().sampling()
        if self.max_completion_tokens is not None:
            options["max_tokens"] = self.max_completion_tokens
        return options
