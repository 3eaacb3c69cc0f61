"""Finds what the sentences of an answer rest on where the model names no source, as small models seldom do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from server.rag.citations import Citation
from server.rag.quotes import QuoteFinder
from server.rag.support import Statement, Support, split_statements, telling_words, word_overlap

MIN_WORDS = 3
"""Telling ones, of a sentence: shorter ones ("Yes, it is.") are in many places."""

MIN_OVERLAP = 0.7
"""Of these, to be found in one sentence of a source: more than a citation needs, as nobody says that it is this one."""


def attribute(answer: str, citations: Sequence[Citation], finders: Sequence[QuoteFinder]) -> Iterator[Support]:
    """Yield the sentences without citations that one sentence of a source supports, in order.

    Their mark is the server's: it has no width, and stands at the sentence's end. Of several sources it names the one
    with most of the words, of equal ones the first.

    Args:
        finders: Of source n, `finders[n - 1]`.
    """
    for statement in split_statements(answer, citations):
        sentence = " ".join(answer[statement.start : statement.end].split())
        if statement.marks or len(telling_words(sentence)) < MIN_WORDS:
            continue
        quotes = [finder.find(sentence) for finder in finders]
        overlaps = [word_overlap(sentence, quote.text) if quote else 0.0 for quote in quotes]
        most = max(overlaps, default=0.0)
        if most >= MIN_OVERLAP:
            yield Support(_marked(statement, overlaps.index(most) + 1), sentence, most, None, is_supported=True)


def _marked(statement: Statement, number: int) -> Statement:
    return replace(statement, marks=(Citation(statement.end, statement.end, (number,)),))
