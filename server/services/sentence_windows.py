"""Cut a text into windows of whole sentences."""

from __future__ import annotations

from collections.abc import Iterator

from server.rag.sentences import split_sentences

Window = tuple[int, int]
"""Offsets into the text, in code points, half-open."""

MIN_CHARS = 8
"""A shorter window takes in the next sentence, so that "Dr." and "No. 5" are not alone."""

MAX_CHARS = 1000
"""A longer sentence (a table, code, a script without full stops) is cut, at a space where there is one."""


PASSAGE_CHARS = 1200
"""Of a passage at least, but for the last: about as much as small rerankers read of a text."""


def split_passages(text: str) -> list[Window]:
    """Cut `text` into windows that are long enough to be understood alone; otherwise as `split_windows`."""
    return split_windows(text, max(1, len(text) // PASSAGE_CHARS))


def split_windows(text: str, max_windows: int) -> list[Window]:
    """Cut `text` into at most `max_windows` windows, as short as that allows, without the space around them.

    Together they hold everything but white space, in order and without overlap; an empty text has none.
    """
    min_chars = max(MIN_CHARS, -(-len(text) // max_windows))
    windows: list[Window] = []
    pending: Window | None = None  # too short to stand alone
    pieces = (piece for sentence in split_sentences(text) for piece in _pieces(text, *sentence))
    for start, end in pieces:
        window = (pending[0] if pending else start, end)
        pending = None if window[1] - window[0] >= min_chars else window
        if pending is None:
            windows.append(window)
    return [*windows, pending] if pending else windows


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
