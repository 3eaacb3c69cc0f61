"""Requests to tokens: rendering, tokenising, and every check that must come before the engine sees a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import structs

from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.errors import ContextLengthExceeded, InvalidRequest, LoadFailed
from server.prompting.chat_template import ChatTemplate
from server.prompting.model_speech import speech_of
from server.prompting.quarantine import PromptPiece
from server.prompting.reasoning_effort import effort_options
from server.prompting.spelled_tools import spell_calls, write_instructions
from server.prompting.template_process import TemplateProcess
from server.types import (
    ChatMessage,
    ChatPrompt,
    GenerateRequest,
    Prompt,
    RenderedPart,
    RenderedPrompt,
    TemplateOption,
    TextPrompt,
    TokenIds,
    TokensPrompt,
)

FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
"""ChatML, for weights that carry no template; llama.cpp does the same."""


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as the model sees it.

    Attributes:
        is_thinking: It ends where reasoning has begun, so that the answer goes on with it.
    """

    token_ids: TokenIds
    is_thinking: bool = False


class ChatPrompts:
    """Reads prompts with one model's template and vocabulary.

    Args:
        context_length: Tokens that prompt and answer may have together.

    Attributes:
        speech: How the model calls tools and thinks.

    Raises:
        LoadFailed: The template cannot be used; the message says why.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, *, context_length: int) -> None:
        self._vocab = model.vocab
        self._model = config.id
        self._context_length = context_length
        self._processes: list[TemplateProcess] = []
        source = model.metadata("tokenizer.chat_template") or FALLBACK_TEMPLATE
        tool_source = model.metadata("tokenizer.chat_template.tool_use") or source
        self._template = self._make_template(source)
        self._tool_template = self._template if tool_source == source else self._make_template(tool_source)
        self.speech = speech_of(
            tool_source,
            self._tool_template.abilities,
            tool_format=config.tool_format,
            reasoning_format=config.reasoning_format,
        )

    def read(self, request: GenerateRequest) -> ReadPrompt:
        """A request's prompt, which leaves room for an answer.

        Raises:
            InvalidRequest: The prompt is empty, or the template refuses it, or it or the sampling names tokens that the
                model does not have.
            ContextLengthExceeded: It leaves no room.
        """
        self._check_logit_bias(request)
        pieces = self._pieces_of(request.prompt)
        token_ids = self._tokenize(request.prompt, pieces)
        if not token_ids:
            raise InvalidRequest("the prompt is empty; give at least one token", param=request.prompt.param)
        if len(token_ids) >= self._context_length:
            raise ContextLengthExceeded(
                f"the prompt has {len(token_ids)} tokens, but this model's maximum context length is"
                f" {self._context_length}, prompt and answer together; shorten it by at least"
                f" {len(token_ids) - self._context_length + 1}",
                param=request.prompt.param,
            )
        return ReadPrompt(token_ids, isinstance(request.prompt, ChatPrompt) and self._ends_in_thought(pieces))

    def prediction(self, request: GenerateRequest) -> TokenIds:
        """Token ids of what a request predicts. Raises ContextLengthExceeded as `token_ids`."""
        return self._plain_tokens_of(request.prediction, param="prediction")

    def text_of(self, prompt: TextPrompt | TokensPrompt) -> str:
        """What a prompt says, which `read` has accepted; control tokens among its token ids by name."""
        if isinstance(prompt, TextPrompt):
            return prompt.text
        names = self._vocab.names
        return b"".join(names[token_id] for token_id in prompt.token_ids).decode("utf-8", "replace")

    def token_ids(self, text_or_prompt: str | Prompt) -> TokenIds:
        """Token ids of a part of a message's text, in which nothing is a control token; or of a whole prompt.

        Raises:
            InvalidRequest: As `read`, but an empty prompt has no tokens.
            ContextLengthExceeded: It is so long that it is not even tokenised.
        """
        if isinstance(text_or_prompt, str):
            return self._plain_tokens_of(text_or_prompt, param=None)
        return self._tokenize(text_or_prompt, self._pieces_of(text_or_prompt))

    def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        """A conversation as the model sees it. Raises as `token_ids`."""
        pieces = self._render(prompt)
        parts = [RenderedPart(piece.text, piece.parse_special) for piece in pieces]
        return RenderedPrompt(parts, self._tokenize(prompt, pieces))

    def token_pieces(self, token_ids: TokenIds) -> list[bytes]:
        """The bytes of tokens, control tokens as their texts. Raises InvalidRequest for ids that the model lacks."""
        self._check_ids(token_ids, param="tokens")
        return [self._vocab.names[token_id] for token_id in token_ids]

    def beginning(self, system_prompt: str) -> TokenIds:
        """The tokens with which every conversation under this system prompt begins.

        Raises:
            InvalidRequest: The template takes no system prompt.
        """
        one, other = (
            self._tokens_of(
                self._template.render(
                    (ChatMessage(role="system", content=system_prompt), ChatMessage(role="user", content=question))
                )
            )
            for question in ("a", "1")
        )
        pairs = enumerate(zip(one, other, strict=False))
        return one[: next((at for at, (a, b) in pairs if a != b), len(one))]

    def close(self) -> None:
        """End the processes that render templates."""
        for process in self._processes:
            process.close()

    def _make_template(self, source: str) -> ChatTemplate:
        vocab = self._vocab
        try:
            return ChatTemplate(
                source,
                self._start_process,
                model=self._model,
                control_texts=vocab.control_texts,
                bos=vocab.bos,
                eos=vocab.eos,
            )
        except LoadFailed:
            self.close()
            raise

    def _start_process(self, source: str) -> TemplateProcess:
        process = TemplateProcess(source)
        self._processes.append(process)
        return process

    def _pieces_of(self, prompt: Prompt) -> list[PromptPiece]:
        """The text of a prompt; none where it has tokens."""
        match prompt:
            case ChatPrompt():
                return self._render(prompt)
            case TextPrompt():
                is_raw = prompt.parses_special and not prompt.suffix
                pieces = [PromptPiece(prompt.text, parse_special=is_raw)]
                return [*pieces, PromptPiece(prompt.suffix, parse_special=False)] if prompt.suffix else pieces
            case TokensPrompt():
                return []

    def _render(self, prompt: ChatPrompt) -> list[PromptPiece]:
        if prompt.continues_last:
            return self._render_begun(prompt)
        speech, tools = self.speech, prompt.tool_use.tools
        messages: Sequence[ChatMessage] = prompt.messages
        if speech.needs_spelling:
            messages = spell_calls(messages, speech.tools.frame)
        template = self._tool_template if tools else self._template
        return template.render(
            messages,
            tools=tools,
            instruct=partial(write_instructions, frame=speech.tools.frame) if speech.needs_instructions else None,
            options=_options_of(prompt, template),
        )

    def _render_begun(self, prompt: ChatPrompt) -> list[PromptPiece]:
        """The last message goes where the model's answer begins."""
        *messages, begun = prompt.messages
        pieces = self._render(structs.replace(prompt, messages=tuple(messages), continues_last=False))
        if self.speech.tools.is_channelled or (pieces and self._ends_in_thought(pieces)):
            message = "answers of this model begin with reasoning, so none can be begun for it; end with a question"
            raise InvalidRequest(message, param=prompt.param, code="unsupported_value")
        return [*pieces, PromptPiece(begun.content, parse_special=False)] if begun.content else pieces

    def _ends_in_thought(self, pieces: Sequence[PromptPiece]) -> bool:
        tags, last = self.speech.thoughts, pieces[-1]
        return tags is not None and last.parse_special and last.text.rstrip().endswith(tags.opening)

    def _tokenize(self, prompt: Prompt, pieces: list[PromptPiece]) -> TokenIds:
        if isinstance(prompt, TokensPrompt):
            self._check_ids(prompt.token_ids, param="prompt")
            return prompt.token_ids
        self._check_size(pieces, param=prompt.param)
        if isinstance(prompt, TextPrompt) and prompt.suffix:
            return self._infill_tokens_of(pieces)
        return self._tokens_of(pieces, adds_bos=not isinstance(prompt, TextPrompt) or prompt.adds_bos)

    def _plain_tokens_of(self, text: str, *, param: str | None) -> TokenIds:
        """Of text in which nothing is a control token."""
        piece = PromptPiece(text, parse_special=False)
        self._check_size([piece], param=param)
        return self._vocab.tokenize(piece.text, parse_special=piece.parse_special)

    def _tokens_of(self, pieces: list[PromptPiece], *, adds_bos: bool = True) -> TokenIds:
        """BOS included where the model wants one, unless told otherwise."""
        vocab = self._vocab
        token_ids = [
            token_id for piece in pieces for token_id in vocab.tokenize(piece.text, parse_special=piece.parse_special)
        ]
        return self._with_bos(token_ids) if adds_bos else token_ids

    def _infill_tokens_of(self, pieces: list[PromptPiece]) -> TokenIds:
        """Text before a gap and text behind it, in the order that models know and llama.cpp's server has."""
        if self._vocab.infill_ids is None:
            message = "this model has no tokens for filling gaps (FIM), so it knows no suffix; leave it out"
            raise InvalidRequest(message, param="suffix", code="unsupported_parameter")
        prefix_id, suffix_id, middle_id = self._vocab.infill_ids
        prefix, suffix = (self._vocab.tokenize(piece.text, parse_special=piece.parse_special) for piece in pieces)
        return self._with_bos([prefix_id, *prefix, suffix_id, *suffix, middle_id])

    def _with_bos(self, token_ids: TokenIds) -> TokenIds:
        vocab = self._vocab
        if vocab.adds_bos and token_ids[:1] != [vocab.bos_id]:
            return [vocab.bos_id, *token_ids]
        return token_ids

    def _check_size(self, pieces: list[PromptPiece], *, param: str | None) -> None:
        """Refuse megabytes of text before tokenising them: no token is longer than the longest piece."""
        least = sum(len(piece.text) for piece in pieces) // self._vocab.longest_piece
        if least > self._context_length:
            raise ContextLengthExceeded(
                f"the prompt has more than {least} tokens, but this model's maximum context length is"
                f" {self._context_length}; shorten it",
                param=param,
            )

    def _check_ids(self, token_ids: TokenIds, *, param: str) -> None:
        unknown = next((token_id for token_id in token_ids if not 0 <= token_id < self._vocab.size), None)
        if unknown is not None:
            raise InvalidRequest(f"token id {unknown} is not in 0..{self._vocab.size - 1}", param=param)

    def _check_logit_bias(self, request: GenerateRequest) -> None:
        for token_id in request.sampling.logit_bias:
            if not 0 <= token_id < self._vocab.size:
                last = self._vocab.size - 1
                raise InvalidRequest(f"logit_bias names token id {token_id}; ids are 0..{last}", param="logit_bias")


def _options_of(prompt: ChatPrompt, template: ChatTemplate) -> Mapping[str, TemplateOption]:
    """Variables for the template.

    Raises:
        InvalidRequest: It does not read one of them.
    """
    known = template.abilities.options
    for name in prompt.template_options:
        if name not in known:
            able = ", ".join(sorted(known)) or "none"
            message = f"the template of this model reads no {name!r}; it reads: {able}"
            raise InvalidRequest(message, param=f"chat_template_kwargs.{name}")
    return {**effort_options(prompt.reasoning_effort, known), **prompt.template_options}
