"""What texts and conversations are to a chat model in tokens, and what its tokens are in text."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import InvalidRequest
from server.models.registry import ModelRegistry
from server.protocols import ChatModel
from server.types import ChatPrompt, RenderedPrompt, TextPrompt, TokenIds


@dataclass(frozen=True, kw_only=True)
class TokenList:
    """The tokens of a text.

    Attributes:
        model_id: As configured, whatever alias was asked.
        context_length: Of the model; None while that is not known.
        pieces: The bytes of each token, if they were wanted.
    """

    model_id: str
    context_length: int | None
    token_ids: TokenIds
    pieces: list[bytes] | None = None


class TokenService:
    """Asks the first chat model where a request names none, and the chat model behind a RAG model."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    async def tokenize(self, model: str | None, prompt: TextPrompt | ChatPrompt, *, with_pieces: bool) -> TokenList:
        """Tell the tokens of a prompt, however many they are. Errors as in `ChatModel.token_ids`.

        Raises:
            ModelNotFound: No model of that name.
        """
        model_id, chat_model = self._find(model)
        [token_ids] = await chat_model.token_ids([prompt])
        return await _listed(model_id, chat_model, token_ids, with_pieces=with_pieces)

    async def render(self, model: str, prompt: ChatPrompt, *, with_pieces: bool) -> tuple[RenderedPrompt, TokenList]:
        """Tell what exactly goes into the model for a conversation. Errors as in `tokenize`.

        Raises:
            InvalidRequest: The model is a RAG model: what it is shown is found when it answers.
        """
        if rag_model := self._registry.rag_model(model):
            raise InvalidRequest(
                f"what model {rag_model.id!r} is shown depends on what it finds; name {rag_model.chat_model!r}",
                param="model",
            )
        model_id, chat_model = self._find(model)
        rendered = await chat_model.render(prompt)
        return rendered, await _listed(model_id, chat_model, rendered.token_ids, with_pieces=with_pieces)

    async def detokenize(self, model: str | None, token_ids: TokenIds) -> str:
        """Tell the text of tokens, control tokens by their names; a code point that is cut becomes U+FFFD.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: A token id is not in the model's vocabulary.
        """
        _, chat_model = self._find(model)
        return b"".join(await chat_model.token_pieces(token_ids)).decode("utf-8", "replace")

    def _find(self, model: str | None) -> tuple[str, ChatModel]:
        config, chat_model, _ = self._registry.chat_or_rag(model)
        return config.id, chat_model


async def _listed(model_id: str, model: ChatModel, token_ids: TokenIds, *, with_pieces: bool) -> TokenList:
    return TokenList(
        model_id=model_id,
        context_length=model.facts.context_length if model.facts else None,
        token_ids=token_ids,
        pieces=await model.token_pieces(token_ids) if with_pieces else None,
    )
