"""Cut a text into windows of whole sentences. Knows no language: only marks that end a sentence somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

Window = tuple[int, int]
"""Offsets into the text, in code points, half-open."""

MIN_CHARS = 8
"""A shorter window takes in the next sentence, so that "Dr." and "No. 5" are not alone."""

MAX_CHARS = 1000
"""A longer sentence (a table, code, a script without full stops) is cut, at a space where there is one."""

_SENTENCE_END = re.compile(
    r"(?<![.!?…؟۔։।॥])[.!?…؟۔։।॥]++[\"'”’»)\]]*+(?=\s)"  # the lookbehind keeps a long run of dots linear
    r"|[。！？｡][”’」』）]*"  # these scripts put no space between sentences
    r"|\n[^\S\n]*\n\s*"
    r"|\n(?=[^\S\n]*[-*•#])"  # list items and headings; other line breaks may just wrap a sentence
)


def split_windows(text: str, max_windows: int) -> list[Window]:
    """Cut `text` into at most `max_windows` windows, as short as that allows, without the space around them.

    Together they hold everything but white space, in order and without overlap; an empty text has none.
    """
    min_chars = max(MIN_CHARS, -(-len(text) // max_windows))
    windows: list[Window] = []
    pending: Window | None = None  # too short to stand alone
    for start, end in _sentences(text):
        window = (pending[0] if pending else start, end)
        pending = None if window[1] - window[0] >= min_chars else window
        if pending is None:
            windows.append(window)
    return [*windows, pending] if pending else windows


def _sentences(text: str) -> Iterator[Window]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        yield from _pieces(text, start, match.end())
        start = match.end()
    yield from _pieces(text, start, len(text))


def _pieces(text: str, start: int, end: int) -> Iterator[Window]:
    """The sentence between two offsets without the space around it, in pieces of at most `MAX_CHARS`."""
    while start < end:
        stop = min(end, start + MAX_CHARS)
        if stop < end and (space := text.rfind(" ", start + 1, stop)) > 0:
            stop = space
        piece = text[start:stop]
        if content := piece.strip():
            first = start + len(piece) - len(piece.lstrip())
            yield first, first + len(content)
        start = stop
