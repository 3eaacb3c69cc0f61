"""Served models whose behaviour a test writes down: what they say, when, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.errors import ContextLengthExceeded, HearthError, InvalidRequest
from server.protocols import EmbeddingResult, RerankResult
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
    RenderedPart,
    RenderedPrompt,
    Started,
    TextPrompt,
    Token,
    TokenIds,
    Truncate,
    Usage,
)

Step = Started | Delta | Finished | Exception | asyncio.Event
"""An event to yield, an exception to raise, or a gate to wait at."""


def saying(*pieces: str, reason: str = "stop", prompt_tokens: int = 5) -> tuple[Step, ...]:
    """The steps of an ordinary answer."""
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len(pieces), cached_tokens=2)
    deltas = (Delta(piece) for piece in pieces)
    return (Started(prompt_tokens), *deltas, Finished(reason, usage))  # type: ignore[arg-type]  # a test's own word


@dataclass
class FakeModel:
    """The state that every served model shows; `begun` is set with the first request."""

    state: ModelState = "ready"
    failure: str | None = None
    facts: ModelFacts | None = None
    encoded: EncoderCounts | None = None
    num_requests: int = 0
    progress: LoadProgress | None = None
    waiting_for: str | None = None
    loads_on_demand: bool = False
    memory_bytes: int | None = None
    idle_s: float | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeChatModel(FakeModel):
    """Goes through `steps` for each request. A word is a token, and each message has two of its own.

    Attributes:
        too_long: A prompt that is refused with `ContextLengthExceeded`.
        requests: Those that were begun.
        aborted: Ids of those whose stream was closed before its end; `abort_seen` is set with the first.
        refused_role: Messages of this role are none that the template knows.
    """

    steps: Sequence[Step] = field(default_factory=lambda: saying("Hello", " there"))
    too_long: Prompt | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    abort_seen: asyncio.Event = field(default_factory=asyncio.Event)
    refused_role: str | None = None

    async def token_ids(self, inputs: Sequence[str | Prompt]) -> list[TokenIds]:
        return [self._token_ids(each) for each in inputs]

    def _token_ids(self, text_or_prompt: str | Prompt) -> TokenIds:
        if isinstance(text_or_prompt, str):
            return [len(word) for word in text_or_prompt.split()]
        if isinstance(text_or_prompt, TextPrompt):
            bos = [1] if text_or_prompt.adds_bos else []
            return [*bos, *text_or_prompt.text.encode()]
        assert isinstance(text_or_prompt, ChatPrompt)
        if any(message.role == self.refused_role for message in text_or_prompt.messages):
            raise InvalidRequest("no such role", param="messages", code="template_error")
        return [id_ for each in text_or_prompt.messages for id_ in (0, *self._token_ids(each.content), 0)]

    async def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        """Each message between two tags, which are the template's."""
        texts = [(f"<{each.role}>", each.content, "</>") for each in prompt.messages]
        parts = [
            RenderedPart(text, is_tag) for tags in texts for text, is_tag in zip(tags, (True, False, True), strict=True)
        ]
        return RenderedPrompt(parts, self._token_ids(prompt))

    async def token_pieces(self, token_ids: TokenIds) -> list[bytes]:
        """A token is the byte of its id."""
        if any(token_id > 255 for token_id in token_ids):
            raise InvalidRequest(f"token id {max(token_ids)} is not in 0..255", param="tokens")
        return [bytes([token_id]) for token_id in token_ids]

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        self.requests.append(request)
        self.begun.set()
        if request.prompt == self.too_long:
            raise ContextLengthExceeded("prompt has 9 tokens but the model accepts 8", param="prompt")
        has_ended = False
        try:
            for step in self.steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                    continue
                has_ended = isinstance(step, Finished | Exception)
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            if not has_ended:
                self.aborted.append(request.request_id)
                self.abort_seen.set()


@dataclass
class FakeEmbedder(FakeModel):
    """Embeds an input as (cos length, sin length), which is of norm 1; twice that where it need not be.

    Inputs over `max_characters` are too long; a repeated one counts as cached. Put prompts into `facts`.

    Attributes:
        gate: When given, answers wait for it.
        error: When given, raised in place of an answer.
        calls: The inputs of each call.
        embedded: All inputs that were given a vector.
        options: The keyword arguments of each call.
        cancelled: Set when a call is cancelled.
    """

    max_characters: int = 100
    gate: asyncio.Event | None = None
    error: HearthError | None = None
    calls: list[list[str | TokenIds]] = field(default_factory=list)
    embedded: list[str | TokenIds] = field(default_factory=list)
    options: list[dict[str, object]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str | None = None,
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        self.options.append({"truncate": truncate, "prompt": prompt, "lane": lane, "normalize": normalize})
        num_truncated = await self._begin(inputs, truncate=truncate)
        self.embedded += inputs
        angles = np.array([len(each) for each in inputs], dtype=np.float32)
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.float32(1 if normalize else 2)
        num_cached = len(inputs) - len({repr(each) for each in inputs})
        return EmbeddingResult(vectors, sum(len(each) for each in inputs), num_truncated, num_cached)

    async def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Token]]:
        """A token for each character, whose id is its code point, between two special ones."""
        await self._begin(texts, truncate="end")
        before, after = ([Token(1, "<s>")], [Token(2, "</s>")]) if add_special_tokens else ([], [])
        return [[*before, *(Token(ord(c), c, at, at + 1) for at, c in enumerate(text)), *after] for text in texts]

    async def _begin(self, texts: Sequence[str] | Sequence[TokenIds], *, truncate: Truncate) -> int:
        self.calls.append(list(texts))
        self.begun.set()
        if self.error is not None:
            raise self.error
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        num_long = sum(len(text) > self.max_characters for text in texts)
        if num_long and truncate == "error":
            longest = max(len(text) for text in texts)
            raise ContextLengthExceeded(f"input has {longest} tokens but the model accepts {self.max_characters}")
        return 0 if truncate == "mean" else num_long


@dataclass
class FakeReranker(FakeEmbedder):
    """Scores a document by the number of its words that the query has too, minus one.

    Attributes:
        max_in_time: With a `timeout_s`, only so many different documents get a score.
    """

    max_in_time: int = 1_000_000

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
        self.options.append(
            {"truncate": truncate, "lane": lane, "max_tokens_per_doc": max_tokens_per_doc, "timeout_s": timeout_s}
        )
        await self._begin(documents, truncate="end")
        if truncate == "error":
            self._refuse_long(documents)
        in_time = set(list(dict.fromkeys(documents))[: None if timeout_s is None else self.max_in_time])
        scored = [document for document in documents if document in in_time]
        num_tokens, num_computed = (sum(map(len, texts)) for texts in (scored, set(scored)))
        return RerankResult(
            np.array([_score(query, text) if text in in_time else np.nan for text in documents], dtype=np.float32),
            num_tokens,
            sum(len(text) > self.max_characters for text in scored),
            len(scored) - len(set(scored)),
            num_tokens - num_computed,
        )

    def _refuse_long(self, documents: Sequence[str]) -> None:
        for index, document in enumerate(documents):
            if len(document) > self.max_characters:
                raise ContextLengthExceeded(
                    f"documents[{index}] and the query have {len(document)} tokens together but the model accepts "
                    f"{self.max_characters}",
                    param=f"documents[{index}]",
                )


def _score(query: str, document: str) -> int:
    return len(set(query.split()) & set(document.split())) - 1
