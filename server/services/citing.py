"""An answer on its way from the model to the client: false citations are taken out, the others are checked, and what
rests on a source without saying so is attributed to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import msgspec

from server.errors import StorageError
from server.protocols import RerankModel
from server.rag.attribution import attribute
from server.rag.citations import Citation, CitationFilter
from server.rag.prompt import Source
from server.rag.quotes import QuoteFinder
from server.rag.relevance import relevance
from server.rag.support import Score, Support, check_support
from server.services.grounding import Cited, CitedSource
from server.services.sentence_windows import split_passages
from server.types import Delta, Finished, Started, TokenLogprob

logger = logging.getLogger(__name__)

FindPages = Callable[[Sequence[tuple[int, int]]], Awaitable[Sequence[int | None]]]
"""The page of each place, which is the id of a chunk and an offset in its document; None where it is not known."""


class Citer:
    """Checks citations with a reranker, if there is one, which gets `timeout_s` for all of an answer."""

    def __init__(self, reranker: RerankModel | None, *, find_pages: FindPages, timeout_s: float) -> None:
        self._reranker = reranker
        self._find_pages = find_pages
        self._timeout_s = timeout_s

    async def cite(
        self, events: AsyncGenerator[Started | Delta | Finished, None], sources: Sequence[Source]
    ) -> AsyncGenerator[Started | Delta | Cited | Finished, None]:
        """Pass on the events of an answer, `Cited` before the last of them. Closing this closes `events`.

        What the model thinks before it answers is no answer and has no citations, but no false numbers either.
        """
        citations, thoughts = CitationFilter(len(sources)), CitationFilter(len(sources))
        pieces: list[str] = []
        logprobs: tuple[TokenLogprob, ...] = ()  # of text that is held back
        async with aclosing(events):
            async for event in events:
                match event:
                    case Started():
                        yield event
                    case Delta():
                        reasoning = thoughts.feed(event.reasoning)
                        if event.text or event.tool_calls:
                            reasoning += thoughts.finish()  # or what was held back would come behind the answer
                        text = citations.feed(event.text)
                        logprobs += event.logprobs
                        if event.tool_calls:
                            text += citations.finish()  # the same
                        pieces.append(text)
                        if text or event.tool_calls or reasoning:
                            its_logprobs = logprobs if text else ()
                            yield msgspec.structs.replace(event, text=text, reasoning=reasoning, logprobs=its_logprobs)
                        if text:
                            logprobs = ()
                    case Finished():
                        rest, reasoning = citations.finish(), thoughts.finish()
                        if rest or reasoning:
                            pieces.append(rest)
                            yield Delta(rest, reasoning=reasoning, logprobs=logprobs)
                        answer = await self._cited("".join(pieces), citations, sources)
                        yield replace(answer, num_removed=citations.num_removed + thoughts.num_removed)
                        yield event

    async def _cited(self, text: str, citations: CitationFilter, sources: Sequence[Source]) -> Cited:
        score = self._scorer(self._reranker) if self._reranker else None
        checked = await check_support(text, citations.citations, [source.text for source in sources], score)
        statements, marks = await asyncio.to_thread(_traced, text, citations.citations, checked, sources)
        marks = await self._on_their_pages(marks, sources)
        return Cited(text=text, marks=tuple(marks), statements=tuple(statements))

    async def _on_their_pages(self, marks: list[CitedSource], sources: Sequence[Source]) -> list[CitedSource]:
        """A source begins on one page, and what is quoted of it may stand on another."""
        places = {
            mark: (sources[mark.number - 1].chunk_id, mark.quote.span.start) for mark in marks if mark.quote is not None
        }
        stored = [place for place in dict.fromkeys(places.values()) if place[0] > 0]
        if not stored:
            return marks
        try:
            pages = dict(zip(stored, await self._find_pages(stored), strict=True))
        except StorageError as exc:
            logger.warning("pages are not known", extra={"reason": exc.message})
            return marks
        return [_on_page(mark, pages.get(places[mark])) if mark in places else mark for mark in marks]

    def _scorer(self, reranker: RerankModel) -> Score:
        async def score(sentence: str, texts: Sequence[str]) -> float | None:
            windows = [text[start:end] for text in texts for start, end in split_passages(text)]
            if not windows:
                return None
            scores = await relevance(reranker, sentence, windows, timeout_s=self._timeout_s)
            return max((each for each in scores if each is not None), default=None)

        return score


def _on_page(mark: CitedSource, page: int | None) -> CitedSource:
    if page is None or mark.quote is None:
        return mark
    return replace(mark, quote=replace(mark.quote, span=replace(mark.quote.span, page=page)))


async def uncited(
    events: AsyncGenerator[Started | Delta | Finished, None], _sources: Sequence[Source]
) -> AsyncGenerator[Started | Delta | Cited | Finished, None]:
    """Pass on an answer that has to be of some form as it is: there, a number in brackets is a list."""
    pieces: list[str] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                pieces.append(event.text)
            elif isinstance(event, Finished):
                yield Cited(text="".join(pieces))
            yield event


def _traced(
    text: str, citations: Sequence[Citation], checked: Sequence[Support], sources: Sequence[Source]
) -> tuple[list[Support], list[CitedSource]]:
    """Add the statements that rest on a source without naming it, and find the places that all of them rest on."""
    finders = [QuoteFinder(source) for source in sources]
    statements = [*checked, *attribute(text, citations, finders)]
    statements.sort(key=lambda support: support.statement.start)
    return statements, list(_cited_sources(statements, finders))


def _cited_sources(statements: Sequence[Support], finders: Sequence[QuoteFinder]) -> Iterator[CitedSource]:
    for support in statements:
        for mark in support.statement.marks:
            for number in mark.numbers:
                quote = finders[number - 1].find(support.sentence)
                yield CitedSource(mark.start, mark.end, number, quote, support.is_supported)
