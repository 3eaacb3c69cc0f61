"""Tells which cited sentences of an answer are supported by their sources: by common words, and by a cross-encoder.

It finds citations of the wrong source, and figures that no source has. It is no proof: a sentence that turns the words
of its source into the opposite passes.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from server.rag.citations import Citation
from server.rag.sentences import split_sentences
from server.rag.words import has_digit, words_of

MIN_OVERLAP = 0.5
"""Of a sentence's words, to be found in its sources."""

MIN_SCORE = 0.5
"""Of the cross-encoder, for a sentence that says it in other words, or in another language."""

MAX_ROOT_CHARS = 6
"""Words that begin alike count as the same: install, installed, installation."""

Score = Callable[[str, Sequence[str]], Awaitable[float | None]]
"""How relevant the best of some texts is to a sentence, 0..1; None if that cannot be told."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the answer, with the citations in it or right behind it.

    Attributes:
        start, end: Offsets into the answer, in code points; marks behind the full stop are not part of it.
        marks: Its citations, in order.
    """

    start: int
    end: int
    marks: tuple[Citation, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the sources that it names, each once."""
        return tuple(dict.fromkeys(number for mark in self.marks for number in mark.numbers))


@dataclass(frozen=True, slots=True)
class Support:
    """What speaks for a statement.

    Attributes:
        sentence: The statement without its marks.
        overlap: How much of its words its sources have, 0..1.
        score: Best of its sources by the cross-encoder; None where it was not asked, or could not tell.
    """

    statement: Statement
    sentence: str
    overlap: float
    score: float | None
    is_supported: bool


async def check_support(
    answer: str, citations: Sequence[Citation], sources: Sequence[str], score: Score | None = None
) -> list[Support]:
    """Check each cited sentence against the sources that it names, in order.

    Every number of two digits or more must stand in a source; besides, half of the words must, or `score` be high.

    Args:
        answer: As sent; `citations` are those of its `CitationFilter`.
        sources: Texts; number n is `sources[n - 1]`.
        score: Asked about statements that their words do not support; does not raise.
    """
    plain = _without_marks(answer, citations)
    cited = {number for each in citations for number in each.numbers}
    vocabularies = await asyncio.to_thread(lambda: {number: _vocabulary(sources[number - 1]) for number in cited})

    async def check(statement: Statement) -> Support:
        sentence = " ".join(plain[statement.start : statement.end].split())
        vocabulary = set[str]().union(*(vocabularies[number] for number in statement.numbers))
        overlap = _overlap(telling_words(sentence), vocabulary)
        best = None
        has_numbers = _has_numbers(sentence, vocabulary)
        if score is not None and has_numbers and overlap < MIN_OVERLAP:
            best = await score(sentence, [sources[number - 1] for number in statement.numbers])
        is_supported = has_numbers and (overlap >= MIN_OVERLAP or (best is not None and best >= MIN_SCORE))
        return Support(statement, sentence, overlap, best, is_supported)

    async with asyncio.TaskGroup() as group:
        checks = [group.create_task(check(statement)) for statement in find_statements(answer, citations)]
    return [each.result() for each in checks]


def word_overlap(sentence: str, passage: str) -> float:
    """How much of a sentence's words a passage has, 0..1: nothing where a number of it is missing there."""
    vocabulary = _vocabulary(passage)
    return _overlap(telling_words(sentence), vocabulary) if _has_numbers(sentence, vocabulary) else 0.0


def find_statements(answer: str, citations: Sequence[Citation]) -> list[Statement]:
    """Find the sentences that citations belong to, in order."""
    return [statement for statement in split_statements(answer, citations) if statement.marks]


def split_statements(answer: str, citations: Sequence[Citation]) -> list[Statement]:
    """Return all sentences of an answer, in order.

    A mark belongs to the sentence that it stands in; between two sentences, to the one before it on the same line.
    """
    plain = _without_marks(answer, citations)
    sentences = list(split_sentences(plain))
    marks: dict[int, list[Citation]] = {}  # by index of the sentence
    for citation in citations:
        index = bisect_right(sentences, (citation.start, len(plain))) - 1
        if index < 0 or _is_before_line(plain, sentences, index, citation):
            index = min(index + 1, len(sentences) - 1)
        if index >= 0:
            marks.setdefault(index, []).append(citation)
    return [Statement(*place, tuple(marks.get(index, ()))) for index, place in enumerate(sentences)]


def _is_before_line(plain: str, sentences: list[tuple[int, int]], index: int, citation: Citation) -> bool:
    """Whether a mark behind a sentence is on another line."""
    _, end = sentences[index]
    return "\n" in plain[end : citation.start]


def _without_marks(answer: str, citations: Sequence[Citation]) -> str:
    """The answer with space instead of marks, so that offsets stay and a full stop before a mark ends its sentence."""
    parts: list[str] = []
    end = 0
    for citation in citations:
        parts += [answer[end : citation.start], " " * (citation.end - citation.start)]
        end = citation.end
    return "".join([*parts, answer[end:]])


def telling_words(sentence: str) -> list[str]:
    """Its words without short Latin ones, which are in every text; all of them where there are no others."""
    words = words_of(sentence)
    return [word for word in words if len(word) > 3 or not word.isascii() or has_digit(word)] or words


def _overlap(words: Sequence[str], vocabulary: set[str]) -> float:
    """The part of the words that is in the vocabulary."""
    return sum(word[:MAX_ROOT_CHARS] in vocabulary for word in words) / len(words) if words else 1.0


def _has_numbers(sentence: str, vocabulary: set[str]) -> bool:
    """Whether each number of two digits or more is in the vocabulary."""
    return all(word in vocabulary for word in words_of(sentence) if len(word) > 1 and has_digit(word))


def _vocabulary(text: str) -> set[str]:
    """Its words and their beginnings."""
    words = words_of(text)
    return {*words, *(word[:MAX_ROOT_CHARS] for word in words)}
