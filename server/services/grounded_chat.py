"""Answers that rest on sources: found in vector stores, or sent along, quoted to the model, and cited by it.

Where nothing relevant is found, the server says so itself: a model that is asked all the same might answer from memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import msgspec

from server.config.rag_section import RagSettings
from server.errors import ContextLengthExceeded, DeadlineExceeded, InvalidRequest
from server.protocols import ChatModel
from server.rag.prompt import NO_SOURCE_ANSWER, Source, SourcePrompt, source_of, write_prompt
from server.rag.search import Hit, SearchOutcome
from server.rag.short_answer import NO_WORK
from server.rag.stopwatch import Stopwatch
from server.services.citing import Citer, uncited
from server.services.framing import Frame, Messages, fitting_frame, without_citations
from server.services.given_documents import best_parts, whole_sources
from server.services.grounding import Cited, Grounding, Sourced
from server.services.query_rewriting import QueryRewriter, Rewriting
from server.services.store_models import StoreModels
from server.services.vector_stores import VectorStoreService
from server.types import ChatPrompt, Delta, Finished, GenerateRequest, Started, Usage

ANSWER_TOKENS = 1024
"""Room that is left for the answer where neither request nor model says how long it may get."""

ANSWER_SHARE = 0.25
"""Of the context, at most: many clients ask for as many tokens as a model can give, and mean none of them."""

MAX_QUERY_CHARS = 16_384
"""Of a message that is searched for: its end, where people put their questions when they paste something."""


@dataclass(frozen=True)
class _Found:
    """Sources, best first, and the search that some of them come from, if there was one. `usage` is what rewriting the
    question took."""

    given: Sequence[Source] = ()
    found: Sequence[Source] = ()
    outcome: SearchOutcome | None = None
    num_irrelevant: int = 0
    usage: Usage = NO_WORK


class GroundedChat:
    """Finds sources, writes the prompt, and follows the answer. Holds nothing of a request."""

    def __init__(self, stores: VectorStoreService, models: StoreModels, settings: RagSettings) -> None:
        self._stores = stores
        self._models = models
        self._rewriter = QueryRewriter()
        self.configure(settings)

    def configure(self, settings: RagSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings

    async def answer(
        self, model: ChatModel, request: GenerateRequest, grounding: Grounding
    ) -> AsyncGenerator[Started | Sourced | Delta | Cited | Finished, None]:
        """Yield `Started`, `Sourced`, any number of `Delta`, `Cited`, then `Finished`. Closing this aborts the work.

        Args:
            request: Its prompt is the conversation as the client sent it.

        Raises:
            InvalidRequest: No message can be searched for, the filter is wrong, or the model refuses the prompt.
            ContextLengthExceeded: The conversation leaves no room for a source.
            ObjectNotFound: There is no such vector store.
            Conflict: A store has expired, or its vectors are another model's, or several have its name.
            StorageError: The data directory cannot be used.
            ModelUnavailable: A model that is needed cannot answer.
        """
        watch, prompt = Stopwatch(), None
        async with _in_time(request):
            with watch.lap("room"):
                frame, room = await self._room_for_sources(model, request, grounding)
            found = await self._find(model, request, grounding, room, watch)
            if found.given or found.found or _has_more_to_go_by(request):
                with watch.lap("prompt"):
                    prompt = await self._write_prompt(model, found, _question(_messages(request)), room)
        sourced = _sourced(found, prompt, watch)
        if prompt is None:
            yield Started(0)
            yield sourced
            yield Delta(NO_SOURCE_ANSWER)
            yield Cited(text=NO_SOURCE_ANSWER)
            yield Finished("stop", found.usage)
            return
        asked = msgspec.structs.replace(request, prompt=frame(prompt.text))
        timeout_s = self._models.rerank_policy.timeout_s
        citer = Citer(self._models.reranker(), find_pages=self._stores.pages, timeout_s=timeout_s)
        cite = citer.cite if request.grammar is None else uncited
        async with aclosing(cite(model.generate(asked), prompt.sources)) as events:
            async for event in events:
                yield _with_usage(event, found.usage) if isinstance(event, Finished) else event
                if isinstance(event, Started):
                    yield sourced

    # ---- room

    async def _room_for_sources(
        self, model: ChatModel, request: GenerateRequest, grounding: Grounding
    ) -> tuple[Frame, int]:
        """Return how sources are put into the conversation, and how many tokens they may have."""
        conversation = _conversation(request) if request.grammar else without_citations(_conversation(request))
        frame, num_tokens = await fitting_frame(model, conversation, grounding.system_prompt)
        assert model.facts is not None  # it has just counted
        context = model.facts.context_length
        wanted = ANSWER_TOKENS if request.sampling.max_tokens is None else request.sampling.max_tokens
        answer_room = min(wanted, int(ANSWER_SHARE * context))
        return frame, min(context - num_tokens - answer_room, self._settings.max_source_tokens)

    # ---- sources

    async def _find(
        self, model: ChatModel, request: GenerateRequest, grounding: Grounding, room: int, watch: Stopwatch
    ) -> _Found:
        given = whole_sources(grounding.documents)
        if not grounding.store_ids and not grounding.store_names:
            return _Found(given)
        tenant = request.tenant
        store_ids = [(await self._stores.get(tenant, store_id)).id for store_id in grounding.store_ids]
        store_ids += [await self._stores.id_of(tenant, name) for name in grounding.store_names]
        with watch.lap("rewrite"):
            rewriting = await self._rewriting(model, request, rewrites=grounding.rewrites_query)
        with watch.lap("search"):
            options = replace(grounding.options, parent_tokens=max(0, room))
            outcome = await self._stores.search_together(tenant, store_ids, rewriting.queries, options)
        relevant = [hit for hit in outcome.hits if self._is_relevant(hit, grounding)]
        num_irrelevant = len(outcome.hits) - len(relevant)
        return _Found(given, list(map(source_of, relevant)), outcome, num_irrelevant, rewriting.usage)

    async def _rewriting(self, model: ChatModel, request: GenerateRequest, *, rewrites: bool) -> Rewriting:
        messages = _messages(request)
        question = _question(messages)
        if not question.strip():
            raise InvalidRequest("no message of the user has text, so there is nothing to search for", param="messages")
        if not rewrites:
            return Rewriting([question])
        timeout_s = self._models.rewrite_timeout_s
        found = await self._rewriter.rewrite(model, messages, timeout_s=timeout_s, tenant=request.tenant)
        return replace(found, queries=[question, *found.queries[1:]])

    def _is_relevant(self, hit: Hit, grounding: Grounding) -> bool:
        """Ask the cross-encoder, else the cosine. What was found by words alone has neither, unless nobody asked."""
        if "rerank" in hit.places:
            wanted = grounding.min_relevance
            return hit.places["rerank"].score >= (self._settings.min_relevance if wanted is None else wanted)
        if "dense" in hit.places:
            wanted = grounding.min_similarity
            return hit.places["dense"].score >= (self._settings.min_similarity if wanted is None else wanted)
        return grounding.options.embedding_weight == 0

    async def _write_prompt(self, model: ChatModel, found: _Found, question: str, room: int) -> SourcePrompt:
        """Quote what there is room for; of documents that came along their best parts, if not all of them fit."""

        async def count_tokens(texts: Sequence[str]) -> list[int]:
            return list(map(len, await model.token_ids(texts)))

        try:
            prompt = await write_prompt([*found.given, *found.found], max_tokens=room, count_tokens=count_tokens)
        except ContextLengthExceeded:
            if not found.given:
                raise
        else:
            if not set(found.given).intersection(prompt.dropped):
                return prompt
        parts = await best_parts(found.given, question, self._models.reranker(), self._models.rerank_policy)
        return await write_prompt([*parts, *found.found], max_tokens=room, count_tokens=count_tokens)


def _sourced(found: _Found, prompt: SourcePrompt | None, watch: Stopwatch) -> Sourced:
    outcome = found.outcome
    return Sourced(
        queries=outcome.queries if outcome else (),
        sources=prompt.sources if prompt else (),
        num_dropped=len(prompt.dropped) if prompt else 0,
        num_irrelevant=found.num_irrelevant,
        rerank_failure=outcome.rerank_failure if outcome else None,
        timings_ms=watch.times_ms(),
    )


def _with_usage(ending: Finished, also: Usage) -> Finished:
    """Add what was asked of the model before: who pays for an answer pays for all that it took."""
    usage = Usage(**{name: getattr(ending.usage, name) + getattr(also, name) for name in Usage.__struct_fields__})
    return msgspec.structs.replace(ending, usage=usage)


@asynccontextmanager
async def _in_time(request: GenerateRequest) -> AsyncIterator[None]:
    """Raises DeadlineExceeded when the request's time is over; what follows is for the model to see to."""
    timeout_s = request.urgency.timeout_s
    left_s = None if timeout_s is None else max(0.0, request.arrived_at + timeout_s - time.monotonic())
    try:
        async with asyncio.timeout(left_s):
            yield
    except TimeoutError:
        message = f"no source was found within timeout_s = {timeout_s:g}; allow more time"
        raise DeadlineExceeded(message) from None


def _has_more_to_go_by(request: GenerateRequest) -> bool:
    """Whether the model is asked even where there are no sources: it may call functions, or the answer has a form."""
    return bool(_conversation(request).tool_use.tools) or request.grammar is not None


def _conversation(request: GenerateRequest) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


def _messages(request: GenerateRequest) -> Messages:
    return _conversation(request).messages


def _question(messages: Messages) -> str:
    """The last user message."""
    question = next((message.content for message in reversed(messages) if message.role == "user"), "")
    return question[-MAX_QUERY_CHARS:]
