"""Real documents that every machine has: the pages of the language reference that `help()` shows, of this Python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pydoc_data.topics import topics

_PARAGRAPH_CHARS = 80  # below, what two pages have in common says nothing
_QUESTION_WORDS = (5, 10)


def python_documents() -> dict[str, str]:
    """Some sixty of them with 400,000 characters, by file name; pages that are part of a larger one are left out."""
    paragraphs = {name: _paragraphs(text) for name, text in topics.items()}
    return {
        f"{name}.txt": text
        for name, text in sorted(topics.items())
        if not any(
            2 * len(paragraphs[name] & paragraphs[other]) >= len(paragraphs[name]) > 0
            for other in topics
            if len(topics[other]) > len(text)
        )
    }


def passages(documents: Mapping[str, str], *, seed: int) -> Iterator[str]:
    """Five to ten words in a row out of the documents, without end: what somebody might look for."""
    choice = random.Random(seed)
    words = [text.split() for text in documents.values()]
    weights = list(map(len, words))
    while True:
        [page] = choice.choices(words, weights)
        start = choice.randrange(max(1, len(page) - _QUESTION_WORDS[1]))
        yield " ".join(page[start : start + choice.randint(*_QUESTION_WORDS)])


def _paragraphs(text: str) -> set[str]:
    return {paragraph for paragraph in text.split("\n\n") if len(paragraph) > _PARAGRAPH_CHARS}
