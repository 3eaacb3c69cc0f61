"""Where sentences end. Knows no language: only marks that end a sentence somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SENTENCE_END = re.compile(
    r"(?<![.!?…؟۔։।॥])[.!?…؟۔։।॥]++[\"'”’»)\]]*+(?=\s)"  # the lookbehind keeps a long run of dots linear
    r"|[。！？｡][”’」』）]*"  # these scripts put no space between sentences
    r"|\n[^\S\n]*\n\s*"
    r"|\n(?=[^\S\n]*[-*•#])"  # list items and headings; other line breaks may just wrap a sentence
)


def split_sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the sentences between two offsets of `text`, without the white space around them.

    Together they hold everything there but white space, in order and without overlap.
    """
    stop = len(text) if end is None else end
    for match in _SENTENCE_END.finditer(text, start, stop):
        yield from _trimmed(text, start, match.end())
        start = match.end()
    yield from _trimmed(text, start, stop)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """One sentence, or none where there is only white space."""
    part = text[start:end]
    if content := part.strip():
        first = start + len(part) - len(part.lstrip())
        yield first, first + len(content)
