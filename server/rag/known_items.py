"""Questions made where nobody has judged anything: what they ask for is known, since they are made of it.

That is easier than what people ask, since the words are the text's own, and easier by words than by meaning: good for
comparing settings on one's own documents, not for saying how good the answers are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.rag.evaluation import Judgements
from server.rag.words import words_of

Questions = dict[str, set[str]]
"""What is asked, and the items that answer it."""

MAX_ITEMS = 3
"""That answer one question: more, and nobody could tell which one is meant."""

_MIN_WORDS = 3  # of a question: fewer, and it could be about anything
_NUM_DISTINCTIVE = 3  # words of a text that are put to its heading
_MIN_LETTERS = 4  # of a distinctive word


@dataclass(frozen=True, slots=True)
class HeadedText:
    """`item` is what shall be found; `heading` as in `Span.heading`; `text` stands below it."""

    item: str
    heading: str
    text: str


def known_items(texts: Sequence[HeadedText], *, num_questions: int | None = None, seed: int = 0) -> Judgements:
    """Make questions of texts: of headings as long as there are any, then of headings and words.

    Args:
        texts: An item may come several times.
        num_questions: At most so many, drawn by the seed; None: all that headings ask, or else all others.
    """
    asked = heading_questions((each.item, each.heading) for each in texts)
    is_enough = bool(asked) if num_questions is None else len(asked) >= num_questions
    return drawn(asked, num_questions, seed, others={} if is_enough else worded_questions(texts))


def heading_questions(headings: Iterable[tuple[str, str]]) -> Questions:
    """Each heading asks for what stands below it, if it says enough to mean one thing.

    Args:
        headings: Item id, and the headings above it as in `Span.heading`.
    """
    return _asked((_question(heading), item) for item, heading in headings)


def worded_questions(texts: Sequence[HeadedText]) -> Questions:
    """The last heading and the words that are the text's own ask for it: for texts whose headings alone do not."""
    words = [[word for word in words_of(each.text) if len(word) >= _MIN_LETTERS] for each in texts]
    num_with = Counter(word for some in words for word in set(some))
    return _asked(
        (_worded(each.heading, some, {word: math.log(len(texts) / num_with[word]) for word in set(some)}), each.item)
        for each, some in zip(texts, words, strict=True)
    )


def drawn(questions: Questions, num_questions: int | None, seed: int, *, others: Questions) -> Judgements:
    """Draw so many of the questions, and of others what is missing; the same for the same seed. None: all of both."""
    generator = np.random.default_rng(seed)
    chosen = _draw(questions, num_questions, generator)
    num_missing = None if num_questions is None else num_questions - len(chosen)
    chosen |= _draw({text: items for text, items in others.items() if text not in chosen}, num_missing, generator)
    queries = {str(number): text for number, text in enumerate(sorted(chosen), start=1)}
    return Judgements(queries, {id_: dict.fromkeys(sorted(chosen[text]), 1) for id_, text in queries.items()})


def _draw(questions: Questions, num_questions: int | None, generator: np.random.Generator) -> Questions:
    if num_questions is None or num_questions >= len(questions):
        return dict(questions)
    texts = sorted(questions)
    return {
        texts[index]: questions[texts[index]] for index in generator.choice(len(texts), num_questions, replace=False)
    }


def _asked(pairs: Iterable[tuple[str, str]]) -> Questions:
    """Join what asks the same; what asks nothing, or for too much, is left out."""
    items: Questions = {}
    for question, item in pairs:
        if question:
            items.setdefault(question, set()).add(item)
    return {question: found for question, found in items.items() if len(found) <= MAX_ITEMS}


def _question(heading: str) -> str:
    """The innermost headings that together have enough words to mean one thing; empty if all together have not."""
    words: list[str] = []
    for level in reversed(heading.split(" > ")):
        words = [*level.split(), *words]
        if len(words) >= _MIN_WORDS:
            return " ".join(words)
    return ""


def _worded(heading: str, words: Sequence[str], rareness: Mapping[str, float]) -> str:
    """Those words are chosen that the text uses much and others do not; empty if it has too few."""
    last = heading.rsplit(" > ", maxsplit=1)[-1]
    counts = Counter(words)
    own = sorted(rareness.keys() - words_of(last), key=lambda word: (-counts[word] * rareness[word], word))
    if len(own) < _NUM_DISTINCTIVE:
        return ""
    chosen = sorted(own[:_NUM_DISTINCTIVE], key=words.index)
    return " ".join([*last.split(), *chosen])
