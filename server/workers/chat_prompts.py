"""Requests to tokens: rendering, tokenising, and every check that must come before the engine sees a token."""

from __future__ import annotations

from server.bindings.llama_model import LlamaModel
from server.errors import ContextLengthExceeded, InvalidRequest
from server.prompting.chat_template import ChatTemplate, PromptPiece
from server.types import ChatMessage, GenerateRequest, Prompt, TextPrompt, TokenIds, TokensPrompt

FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
"""ChatML, for weights that carry no template; llama.cpp does the same."""


class ChatPrompts:
    """Reads prompts with one model's template and vocabulary.

    Args:
        context_length: Tokens that prompt and answer may have together.
    """

    def __init__(self, model: LlamaModel, *, context_length: int) -> None:
        self._vocab = model.vocab
        self._context_length = context_length
        self._template = ChatTemplate(
            model.metadata("tokenizer.chat_template") or FALLBACK_TEMPLATE,
            control_texts=model.vocab.control_texts,
            bos=model.vocab.bos,
            eos=model.vocab.eos,
        )

    def read(self, request: GenerateRequest) -> TokenIds:
        """Token ids of a request's prompt, which leave room for an answer.

        Raises:
            InvalidRequest: The prompt is empty, or the template refuses it, or it or the sampling names tokens that the
                model does not have.
            ContextLengthExceeded: It leaves no room.
        """
        self._check_logit_bias(request)
        token_ids = self._tokenize(request.prompt)
        if len(token_ids) >= self._context_length:
            raise ContextLengthExceeded(
                f"the prompt has {len(token_ids)} tokens but the model accepts {self._context_length}, prompt and"
                f" answer together; shorten it by at least {len(token_ids) - self._context_length + 1}",
                param=request.prompt.param,
            )
        return token_ids

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

    def _tokenize(self, prompt: Prompt) -> TokenIds:
        if isinstance(prompt, TokensPrompt):
            unknown = next((token_id for token_id in prompt.token_ids if not 0 <= token_id < self._vocab.size), None)
            if unknown is not None:
                raise InvalidRequest(f"token id {unknown} is not in 0..{self._vocab.size - 1}", param="prompt")
            token_ids = prompt.token_ids
        else:
            if isinstance(prompt, TextPrompt):
                pieces = [PromptPiece(prompt.text, parse_special=True)]
            else:
                pieces = self._template.render(prompt.messages)
            self._check_size(pieces, prompt)
            token_ids = self._tokens_of(pieces)
        if not token_ids:
            raise InvalidRequest("the prompt is empty; give at least one token", param=prompt.param)
        return token_ids

    def _tokens_of(self, pieces: list[PromptPiece]) -> TokenIds:
        """BOS included where the model wants one."""
        vocab = self._vocab
        token_ids = [
            token_id for piece in pieces for token_id in vocab.tokenize(piece.text, parse_special=piece.parse_special)
        ]
        if vocab.adds_bos and token_ids[:1] != [vocab.bos_id]:
            return [vocab.bos_id, *token_ids]
        return token_ids

    def _check_size(self, pieces: list[PromptPiece], prompt: Prompt) -> None:
        """Refuse megabytes of text before tokenising them: no token is longer than the longest piece."""
        least = sum(len(piece.text) for piece in pieces) // self._vocab.longest_piece
        if least > self._context_length:
            raise ContextLengthExceeded(
                f"the prompt has more than {least} tokens but the model accepts {self._context_length}; shorten it",
                param=prompt.param,
            )

    def _check_logit_bias(self, request: GenerateRequest) -> None:
        for token_id in request.sampling.logit_bias:
            if not 0 <= token_id < self._vocab.size:
                last = self._vocab.size - 1
                raise InvalidRequest(f"logit_bias names token id {token_id}; ids are 0..{last}", param="logit_bias")
