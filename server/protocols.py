"""What a service may ask of a model, whoever serves it: a local worker today, a remote upstream later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.types import (
    ChatPrompt,
    Delta,
    EncoderCounts,
    Finished,
    GenerateRequest,
    Lane,
    LoadProgress,
    ModelFacts,
    ModelState,
    Prompt,
    RenderedPrompt,
    Started,
    Token,
    TokenIds,
    Truncate,
)


@dataclass(frozen=True)
class EmbeddingResult:
    """Vectors in input order.

    Attributes:
        vectors: float32 [num_inputs, dimensions], each row of L2 norm 1 unless that was not wanted; owned by the
            caller.
        num_prompt_tokens: Tokens of all inputs after truncation, prompt and special tokens included.
        num_truncated: Inputs that lost text to truncation.
        num_cached: Inputs that no forward pass was made for: known already, or the same as another one in hand.
    """

    vectors: npt.NDArray[np.float32]
    num_prompt_tokens: int
    num_truncated: int = 0
    num_cached: int = 0


@dataclass(frozen=True)
class RerankResult:
    """Relevance of each document to the query, in input order.

    Attributes:
        scores: float32 [num_documents], the raw logits of the cross-encoder, NaN for documents that were not scored in
            time.
        num_prompt_tokens: Tokens of all query-document pairs that were scored, after truncation.
        num_truncated: Of these, documents that lost text to truncation.
        num_cached: Of these, documents that no forward pass was made for; see `EmbeddingResult`.
        num_cached_tokens: Tokens of the pairs that no forward pass was made for.
    """

    scores: npt.NDArray[np.float32]
    num_prompt_tokens: int
    num_truncated: int = 0
    num_cached: int = 0
    num_cached_tokens: int = 0

    @property
    def relevance(self) -> npt.NDArray[np.float32]:
        """The scores as 0..1, by the sigmoid in float32: half precision would round good ones into ties."""
        logits = self.scores.astype(np.float32, copy=False)
        decay = np.exp(-np.abs(logits))  # never overflows
        return np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(np.float32, copy=False)


class ServedModel(Protocol):
    """The state that every served model shows, ready or not."""

    @property
    def state(self) -> ModelState: ...

    @property
    def failure(self) -> str | None:
        """Why the state is `failed`, for people; None otherwise."""

    @property
    def facts(self) -> ModelFacts | None:
        """What the last load found; None before the first."""

    @property
    def encoded(self) -> EncoderCounts | None:
        """What the worker of an encoder has computed since it was started; None of other models, and without worker."""

    @property
    def num_requests(self) -> int:
        """Requests in flight, those that wait for the model to load included."""

    @property
    def progress(self) -> LoadProgress | None:
        """How far the load has come; None unless the model is loading."""

    @property
    def waiting_for(self) -> str | None:
        """What keeps a load from going on, for people; None if nothing does."""

    @property
    def loads_on_demand(self) -> bool:
        """Whether it is not meant to be in memory now, as the next request loads it."""

    @property
    def memory_bytes(self) -> int | None:
        """Of the machine's memory, what it held when it was last measured; None before, and without worker."""

    @property
    def idle_s(self) -> float | None:
        """For how long nobody has asked it; None while somebody does, and unless it is ready."""


class ChatModel(ServedModel, Protocol):
    """Generates text."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        """Yield `Started`, any number of `Delta`, then `Finished`.

        A worker's own model may yield `Started` once more, with `has_begun`; those that services ask do not.

        Closing the generator early aborts the work and frees its memory within one engine step.

        Raises:
            InvalidRequest: Prompt or parameters are refused; raised before `Started`.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """

    async def token_ids(self, inputs: Sequence[str | Prompt]) -> list[TokenIds]:
        """Tell the token ids of texts and prompts, of each in its order. Cancelling drops what is not done yet.

        Args:
            inputs: A text counts as part of a message: control-token strings in it are plain text, and nothing is
                added to it. A prompt has the ids that `generate` would begin with, however many they are.

        Raises:
            InvalidRequest: The chat template refuses the messages, or a token id is not in the model's vocabulary.
            ContextLengthExceeded: An input is much longer than the model accepts.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """

    async def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        """Tell what `generate` would begin with, however long it is. Errors as in `token_ids`."""

    async def token_pieces(self, token_ids: TokenIds) -> list[bytes]:
        """Tell the bytes of each token, control tokens as their texts; a code point may go over several tokens.

        Raises:
            InvalidRequest: A token id is not in the model's vocabulary, or the model has none.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """


class EmbeddingModel(ServedModel, Protocol):
    """Turns texts into vectors (bi-encoder)."""

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str | None = None,
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        """Embed inputs, keeping their order. Cancelling drops what has not been computed yet.

        Args:
            inputs: At least one; texts that are not empty, or lists of the model's own token ids, to which special
                tokens are added as to a text.
            truncate: What to do with inputs that are too long.
            prompt: Put before each input, and may be empty; None: the model's default prompt, if it has one.
            lane: Bulk inputs wait while interactive ones do, up to a bound.
            normalize: Scale vectors to L2 norm 1; otherwise they are as the model pooled them.

        Raises:
            InvalidRequest: A token id is not in the model's vocabulary.
            ContextLengthExceeded: An input is longer than the model accepts and `truncate` is "error".
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """

    async def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Token]]:
        """Tell the tokens of texts, of each in its order, whatever the model's limit.

        Raises:
            InvalidRequest: The model cannot tell where its tokens stand.
            ContextLengthExceeded: A text is much longer than the model accepts.
            ModelUnavailable: The model is not loaded, overloaded or has died.
        """


class VectorIndex(Protocol):
    """Nearest neighbours by inner product over one vector store's chunks. Every method may be called from any thread.

    A search sees one generation, whole; it never waits for `apply`.
    """

    @property
    def generation(self) -> int:
        """The store's generation that searches see."""

    def search(
        self, queries: npt.NDArray[np.float32], k: int, *, allowed_ids: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Find the `k` best chunks for each query, best first.

        Args:
            queries: float32 [num_queries, dimensions], L2 norm 1.
            allowed_ids: Only these chunks count, exactly; None: all.

        Returns:
            Ids int64 [num_queries, k], -1 where there are fewer, and inner products float32 of the same shape.
        """

    def apply(
        self,
        generation: int,
        added_ids: npt.NDArray[np.int64],
        vectors: npt.NDArray[np.float32],
        removed_ids: npt.NDArray[np.int64],
    ) -> None:
        """Take over one change of the store, after which searches see `generation`. Changes come in order."""


class RerankModel(ServedModel, Protocol):
    """Scores documents against a query (cross-encoder)."""

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: Truncate = "error",
        lane: Lane = "interactive",
        max_tokens_per_doc: int | None = None,
        timeout_s: float | None = None,
    ) -> RerankResult:
        """Score each document, or as many as the time suffices for. Errors as in `EmbeddingModel.embed`.

        Args:
            query: Never truncated; refused if it leaves no room for a document.
            documents: At least one; with a `timeout_s`, put those that matter most first.
            truncate: "error" or "end": documents that are too long are refused, or lose their end.
            lane: As in `EmbeddingModel.embed`.
            max_tokens_per_doc: Documents are cut to this many tokens, whatever `truncate` says.
            timeout_s: Documents that are not scored by then, counted from now, stay without a score; at least one
                is scored, and one batch may be finished after it.
        """
