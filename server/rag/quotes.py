"""Finds the place in a source that a statement rests on: what a reader wants to see first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.rag.documents import Span
from server.rag.prompt import Source
from server.rag.sentences import split_sentences
from server.rag.support import MAX_ROOT_CHARS
from server.rag.words import words_of

MAX_QUOTE_CHARS = 400
"""A longer sentence (a table, code) is quoted by its beginning."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a document. `span` is where `text` stands there."""

    span: Span
    text: str


class QuoteFinder:
    """Looks into one source, as often as it is cited."""

    def __init__(self, source: Source) -> None:
        self._source = source
        sentences = list(split_sentences(source.text))
        self._sentences = [(start, end, _roots(source.text[start:end])) for start, end in sentences]

    def find(self, statement: str) -> Quote | None:
        """Return the sentence that shares most words with a statement, for its length; None where none shares any."""
        wanted = _roots(statement)
        best, most = None, 0.0
        for start, end, roots in self._sentences:
            likeness = len(wanted & roots) / len(wanted | roots) if roots else 0.0
            if likeness > most:
                best, most = (start, end), likeness
        return None if best is None else self._quote(*best)

    def _quote(self, start: int, end: int) -> Quote:
        text = self._source.text[start : min(end, start + MAX_QUOTE_CHARS)]
        first = self._source.span.start + start
        return Quote(replace(self._span_at(first), start=first, end=first + len(text)), text)

    def _span_at(self, offset: int) -> Span:
        """The smallest stretch around a place whose page and headings are known."""
        core = self._source.core
        return core if core is not None and core.start <= offset < core.end else self._source.span


def _roots(text: str) -> set[str]:
    return {word[:MAX_ROOT_CHARS] for word in words_of(text)}
