"""Text that arrives in pieces, and the primitives that readers take it with.

A reader is a generator: it suspends (`yield`) where it needs more text and is resumed when some has come, so that it
reads like code over a finished text. Every primitive decides by the text alone, never by where one piece ends and the
next begins; and it consumes as it goes, so that all work together stays linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""Suspends while it waits for more text; returns what was read."""
Write = Callable[[str], object]

SPACE = re.compile(r"[ \t\r\n]*")


def ignore(_text: str) -> None:
    """What is read and belongs to nothing."""


class TextSource:
    """The part of a text that has come and has not been read.

    Attributes:
        num_read: Characters that have been read, which is where the next one stands in the text.
    """

    def __init__(self) -> None:
        self.num_read = 0
        self._text = ""
        self._at = 0
        self._is_closed = False
        self._recorded: list[str] | None = None

    def feed(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    def close(self) -> None:
        """Nothing more will come."""
        self._is_closed = True

    # ---- what has been read

    def record(self, beginning: str = "") -> None:
        """Remember what is read from here on, as if `beginning` had been read too."""
        self._recorded = [beginning]

    def recorded(self) -> str:
        """Return what was read since `record`, and remember no more."""
        text = "".join(self._recorded or ())
        self._recorded = None
        return text

    # ---- reading

    def peek(self, num_chars: int = 1) -> Reading[str]:
        """The next characters, unread; fewer at the end of the text."""
        while len(self._text) - self._at < num_chars and not self._is_closed:
            yield
        return self._text[self._at : self._at + num_chars]

    def take(self, num_chars: int) -> str:
        """Read characters that have been peeked at."""
        piece = self._text[self._at : self._at + num_chars]
        self._at += len(piece)
        self.num_read += len(piece)
        if self._recorded is not None and piece:
            self._recorded.append(piece)
        return piece

    def take_literal(self, literal: str) -> Reading[bool]:
        """Read `literal` if it comes next. Waits no longer than the text agrees with it."""
        while True:
            piece = self._text[self._at : self._at + len(literal)]
            if piece == literal:
                self.take(len(literal))
                return True
            if self._is_closed or not literal.startswith(piece):
                return False
            yield

    def copy_run(self, run: re.Pattern[str], write: Write) -> Reading[None]:
        """Write all that matches here of a pattern that repeats one class of characters, such as `SPACE`."""
        while True:
            found = run.match(self._text, self._at)
            self._copy(found.end() - self._at if found else 0, write)
            if self._at < len(self._text) or self._is_closed:
                return
            yield

    def collect_run(self, run: re.Pattern[str]) -> Reading[str]:
        pieces: list[str] = []
        yield from self.copy_run(run, pieces.append)
        return "".join(pieces)

    def skip_space(self) -> Reading[None]:
        yield from self.copy_run(SPACE, ignore)

    def copy_until(self, markers: Sequence[str], write: Write) -> Reading[str | None]:
        """Write the text before the first of `markers`, read the marker, and return it; None: none came to the end.

        No marker may be part of another one: which of them came first would depend on how the text is cut.
        """
        search = _search_for(tuple(markers))
        while True:
            found = search.pattern.search(self._text, self._at)
            if found:
                self._copy(found.start() - self._at, write)
                return self.take(len(found.group()))
            rest = len(self._text) - self._at
            self._copy(rest if self._is_closed else rest - search.num_held(self._text, rest), write)
            if self._is_closed:
                return None
            yield

    def _copy(self, num_chars: int, write: Write) -> None:
        if num_chars:
            write(self.take(num_chars))


class _Search:
    """Finds the first of some markers, and what may be the beginning of one at the end of a text."""

    def __init__(self, markers: Sequence[str]) -> None:
        self.pattern = re.compile("|".join(map(re.escape, markers)) or "(?!)")
        self._beginnings = frozenset(marker[:length] for marker in markers for length in range(1, len(marker)))
        self._longest = max(map(len, self._beginnings), default=0)

    def num_held(self, text: str, most: int) -> int:
        """Length of the longest end of `text`, of at most so many characters, that begins a marker."""
        lengths = range(min(self._longest, most), 0, -1)
        return next((length for length in lengths if text[-length:] in self._beginnings), 0)


@lru_cache(maxsize=64)
def _search_for(markers: tuple[str, ...]) -> _Search:
    return _Search(markers)
