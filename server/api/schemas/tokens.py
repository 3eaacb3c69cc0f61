"""The bodies of requests about tokens: what text-embeddings-inference, llama-server and vLLM accept, in one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, FailFast, Field, ValidationInfo, field_validator

from server.api.schemas.chat import MAX_TEMPLATE_OPTIONS, ChatRequest, TemplateOptionName, TemplateOptionValue
from server.api.schemas.chat_messages import MAX_MESSAGES, Message, check_begun, check_flag, continues
from server.api.schemas.embeddings import Texts
from server.api.schemas.sampling import MAX_INT32
from server.api.schemas.tools import MAX_TOOLS, FunctionTool, check_names, to_tool_use
from server.api.schemas.wire import ModelName, WireModel
from server.errors import InvalidRequest
from server.types import ChatPrompt, TextPrompt

MAX_TOKEN_IDS = 1 << 18
"""In one request: as many as the longest contexts hold."""

SOURCES = ("content", "prompt", "messages", "inputs")


class TokenizeRequest(WireModel):
    """Exactly one of `content`, `prompt`, `messages` and `inputs`."""

    model: ModelName | None = None
    """id or alias of a chat model, with `inputs` of an embedding model; default: the first one"""
    content: str | None = None
    """a text, as in llama-server: nothing is put before it unless `add_special` says so"""
    prompt: str | None = None
    """a text, as in vLLM: the tokens that `/v1/completions` would begin with"""
    messages: Annotated[list[Message] | None, FailFast(), Field(min_length=1, max_length=MAX_MESSAGES)] = None
    """a conversation, as in vLLM: the tokens that `/v1/chat/completions` would begin with"""
    inputs: Texts | None = None
    """a text or up to `server.limits.max_inputs`, as in text-embeddings-inference: the tokens of an embedding model,
    and where they stand"""
    add_special_tokens: bool = True
    """`false` leaves out what the model puts around a `prompt` (BOS) or around `inputs`"""
    add_special: bool = False
    """the same for `content`"""
    parse_special: bool = True
    """`false` takes control-token strings in `content` for plain text, as those in messages always are"""
    with_pieces: bool = False
    """`tokens` are `{"id", "piece"}`; a piece is a string, or a list of bytes where it is not UTF-8 by itself"""
    return_token_strs: bool = False
    """adds `token_strs`, with U+FFFD where a token is not UTF-8 by itself"""
    tools: Annotated[
        list[FunctionTool], FailFast(), Field(default_factory=list, max_length=MAX_TOOLS), AfterValidator(check_names)
    ]
    """functions that the conversation may call"""
    chat_template_kwargs: Annotated[
        dict[TemplateOptionName, TemplateOptionValue], Field(default_factory=dict, max_length=MAX_TEMPLATE_OPTIONS)
    ]
    """as in [chat](#chat)"""

    continue_final_message: bool | None = None
    """as in [chat](#answers-that-are-begun)"""
    add_generation_prompt: bool | None = None
    """only the reverse of `continue_final_message`"""

    @field_validator("messages", mode="after")
    @classmethod
    def _is_rightly_begun(cls, messages: list[Message] | None) -> list[Message] | None:
        return messages and check_begun(messages)

    @field_validator("continue_final_message", "add_generation_prompt", mode="after")
    @classmethod
    def _says_what_is_done(cls, flag: bool | None, info: ValidationInfo) -> bool | None:
        return check_flag(flag, info)

    def source(self) -> str:
        """Which of `SOURCES` it is. Raises InvalidRequest if that is not one."""
        named = [name for name in SOURCES if getattr(self, name) is not None]
        if not named:
            message = f"one of {', '.join(SOURCES)} is required"
            raise InvalidRequest(message, param=SOURCES[0], code="missing_required_parameter")
        if len(named) > 1:
            raise InvalidRequest(f"the request has {' and '.join(named)}; send one of them", param=named[1])
        return named[0]

    def to_prompt(self) -> TextPrompt | ChatPrompt:
        """What a chat model is to tokenise; not for `inputs`."""
        if self.messages is not None:
            tool_use = to_tool_use(self.tools, "auto", is_parallel=True)
            messages = tuple(message.to_message() for message in self.messages)
            return ChatPrompt(
                messages, tool_use, None, self.chat_template_kwargs, continues_last=continues(self.messages)
            )
        if self.prompt is not None:
            return TextPrompt(self.prompt, adds_bos=self.add_special_tokens)
        return TextPrompt(self.content or "", adds_bos=self.add_special, parses_special=self.parse_special)


class DetokenizeRequest(WireModel):
    model: ModelName | None = None
    """id or alias of a chat model; default: the first one"""
    tokens: Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT32)]], FailFast(), Field(max_length=MAX_TOKEN_IDS)]
    """up to 262,144 token ids of the model; required"""


class ApplyTemplateRequest(ChatRequest):
    """A chat request; what does not change the prompt is checked and goes no further."""

    with_pieces: bool = False
    """`tokens` are `{"id", "piece"}`; a piece is a string, or a list of bytes where it is not UTF-8 by itself"""

    def to_prompt(self) -> ChatPrompt:
        """Raises InvalidRequest for a request that is to be grounded: what it would be shown is not known."""
        if self.documents or self.grounding() is not None:
            raise InvalidRequest(
                "the prompt of a grounded answer is made when it is asked; leave documents and 'file_search' out",
                param="documents" if self.documents else "tools",
                code="unsupported_parameter",
            )
        return super().to_prompt()
