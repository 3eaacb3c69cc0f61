"""Served models whose behaviour a test writes down: what they say, when, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.errors import ContextLengthExceeded, HearthError
from server.protocols import EmbeddingResult, RerankResult
from server.types import Delta, Finished, GenerateRequest, ModelFacts, ModelState, Prompt, Started, Usage

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
    begun: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeChatModel(FakeModel):
    """Goes through `steps` for each request.

    Attributes:
        too_long: A prompt that is refused with `ContextLengthExceeded`.
        requests: Those that were begun.
        aborted: Ids of those whose stream was closed before its end; `abort_seen` is set with the first.
    """

    steps: Sequence[Step] = field(default_factory=lambda: saying("Hello", " there"))
    too_long: Prompt | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    abort_seen: asyncio.Event = field(default_factory=asyncio.Event)

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
    """Embeds a text as the unit vector (cos length, sin length); texts over `max_characters` are too long.

    Attributes:
        gate: When given, answers wait for it.
        error: When given, raised in place of an answer.
        calls: The texts of each call.
        cancelled: Set when a call is cancelled.
    """

    max_characters: int = 100
    gate: asyncio.Event | None = None
    error: HearthError | None = None
    calls: list[list[str]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, texts: Sequence[str], *, truncate: bool = False) -> EmbeddingResult:
        num_truncated = await self._begin(texts, truncate=truncate)
        angles = np.array([len(text) for text in texts], dtype=np.float32)
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return EmbeddingResult(vectors, sum(len(text) for text in texts), num_truncated)

    async def _begin(self, texts: Sequence[str], *, truncate: bool) -> int:
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
        if num_long and not truncate:
            longest = max(len(text) for text in texts)
            raise ContextLengthExceeded(f"input has {longest} tokens but the model accepts {self.max_characters}")
        return num_long


@dataclass
class FakeReranker(FakeEmbedder):
    """Scores a document by the number of its words that the query has too, minus one."""

    async def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> RerankResult:
        num_truncated = await self._begin(documents, truncate=truncate)
        wanted = set(query.split())
        scores = [len(wanted & set(document.split())) - 1 for document in documents]
        return RerankResult(np.array(scores, dtype=np.float32), sum(len(d) for d in documents), num_truncated)
