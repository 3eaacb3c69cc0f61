"""Cuts a document where a reader would: headings before blocks before sentences and lines before words.

    # Setup                       a heading ends the chunk before it, if that has a fair length
    Unpack it. Then run it.       blocks are kept whole where they fit; if not, sentences are
    | port | 8000 |               tables and code always, where one fits into a chunk at all; if not, their lines are
    # Use

Knows places between tokens (`TokenBounds`) and regions (`Outline`), and works in time linear in both.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

from server.rag.outline import Outline, Region
from server.rag.sentences import split_sentences
from server.rag.token_bounds import TokenBounds

Window = tuple[int, int]
"""Two places of `TokenBounds`."""

WORD, LINE, SENTENCE, BLOCK = range(4)
"""How good a place is to cut at. A line is one of a table or of code; that of a list counts as a sentence."""

MIN_FILL = 4
"""What holds a quarter of the tokens that it may is long enough to end early, at a better place."""

_LINE_END = re.compile(r"\n(?:[^\S\n]*+\n)*+")


class Structure:
    """A document's places, each with how good it is to cut there."""

    def __init__(self, outline: Outline, bounds: TokenBounds) -> None:
        self._text = outline.text
        self._bounds = bounds
        self._strength = np.zeros(bounds.last + 1, np.uint8)
        self._headings: list[tuple[int, int]] = []  # place and level of each
        self._sections: list[tuple[int, int]] = []  # of those headings that do not stand right under another one
        self._wholes: list[Window] = []  # tables and code
        previous: Region | None = None
        for region in outline.regions:
            self._mark_region(region, previous)
            previous = region

    def cut(self, start: int, end: int, *, max_tokens: int, overlap_tokens: int) -> Iterator[Window]:
        """Cut what is between two places into windows of at most `max_tokens`.

        Each window but the first begins with as many whole sentences of the one before as `overlap_tokens` allow, but
        for those above the last heading. Only a character of more than `max_tokens` makes a larger window.
        """
        first = done = start
        while done < end:
            stop = self._next_cut(first, done, end, max_tokens)
            yield first, stop
            first, done = self._overlap(first, stop, max_tokens, overlap_tokens), stop

    # ---- marks

    def _mark_region(self, region: Region, previous: Region | None) -> None:
        place = self._bounds.at(previous.end) if previous else 0
        is_under_heading = previous is not None and previous.kind == "heading"
        if not is_under_heading:
            self._mark(place, BLOCK)
        if region.kind == "heading":
            self._headings.append((place, region.level))
            if not is_under_heading:
                self._sections.append((place, region.level))
        elif region.kind in ("table", "code"):
            self._wholes.append((place, self._bounds.at(region.end)))
            self._mark_lines(region, line=LINE, gap=SENTENCE)
        else:
            self._mark_sentences(region)
            if region.kind == "list":
                self._mark_lines(region, line=SENTENCE, gap=BLOCK)

    def _mark_lines(self, region: Region, *, line: int, gap: int) -> None:
        """`gap` is for lines behind empty ones."""
        for match in _LINE_END.finditer(self._text, region.start, region.end):
            self._mark(self._bounds.at(match.start()), gap if match[0].count("\n") > 1 else line)

    def _mark_sentences(self, region: Region) -> None:
        last: int | None = None
        for start, end in split_sentences(self._text, region.start, region.end):
            if last is not None:
                is_gap = self._text.count("\n", last, start) > 1
                self._mark(self._bounds.at(last), BLOCK if is_gap else SENTENCE)
            last = end

    def _mark(self, place: int, strength: int) -> None:
        self._strength[place] = max(self._strength[place], strength)

    # ---- where a window ends

    def _next_cut(self, first: int, done: int, end: int, max_tokens: int) -> int:
        """Choose where the window from `first` ends: behind `done`, at `end` or before."""
        furthest = min(end, max(done + 1, self._bounds.furthest(first, max_tokens)))
        fair = max(done + 1, self._bounds.nearest(first, -(-max_tokens // MIN_FILL)))
        section = self._next_section(first, done, fair, furthest, end)
        if section is not None:
            return section
        if furthest == end or fair > furthest:
            return furthest
        strengths = self._strength[fair : furthest + 1]
        best = int(strengths.max())
        cut = furthest - int(np.argmax(strengths[::-1] == best)) if best else self._last_word(fair, furthest)
        return self._before_whole(cut, done, max_tokens)

    def _next_section(self, first: int, done: int, fair: int, furthest: int, end: int) -> int | None:
        """The heading to cut at, if any.

        It is the first one that leaves a fair window, or stands above the section that the window begins in. Short
        sections share a window, but not with one that would not fit in whole.
        """
        last = None
        for place, level in _between(self._sections, done + 1, min(furthest, end - 1)):
            if place >= fair or level < self._level(first):
                return place
            last = place
        return last if furthest < end else None

    def _level(self, place: int) -> int:
        """Of the last heading at or before a place; 0 if there is none."""
        index = bisect_right(self._headings, place, key=_place)
        return self._headings[index - 1][1] if index else 0

    def _last_word(self, low: int, high: int) -> int:
        """The last place that tears no word; where there is but one word, the last."""
        return next((place for place in range(high, low - 1, -1) if self._is_between_words(place)), high)

    def _is_between_words(self, place: int) -> bool:
        offset = self._bounds.offsets[place]
        return self._text[offset].isspace() or self._text[offset - 1].isspace()

    def _before_whole(self, cut: int, done: int, max_tokens: int) -> int:
        """Cut before a table or code instead of inside of it, if a window can hold it."""
        index = bisect_left(self._wholes, cut, key=_place) - 1
        if index < 0:
            return cut
        start, end = self._wholes[index]
        fits = self._bounds.num_tokens(start, end) <= max_tokens
        return start if done < start and cut < end and fits else cut

    # ---- where the next one begins

    def _overlap(self, first: int, cut: int, max_tokens: int, overlap_tokens: int) -> int:
        """Choose where the window behind `cut` begins: between `first` and `cut`, or there."""
        room = min(overlap_tokens, max_tokens - self._size_of_whole(cut, max_tokens))
        under = bisect_right(self._headings, cut, key=_place)
        heading = self._headings[under - 1][0] if under else 0
        low = max(self._bounds.earliest(cut, room), heading, first + 1)
        least = min(SENTENCE, int(self._strength[cut]))
        if least == WORD:
            return next((place for place in range(low, cut) if self._is_between_words(place)), cut)
        places = np.flatnonzero(self._strength[low:cut] >= least)
        return low + int(places[0]) if places.size else cut

    def _size_of_whole(self, place: int, max_tokens: int) -> int:
        """Tokens of the table or code that begins at a place, if it is to stay whole."""
        index = bisect_left(self._wholes, place, key=_place)
        if index == len(self._wholes) or self._wholes[index][0] != place:
            return 0
        num_tokens = self._bounds.num_tokens(*self._wholes[index])
        return num_tokens if num_tokens <= max_tokens else 0


def _between(headings: list[tuple[int, int]], low: int, high: int) -> Iterator[tuple[int, int]]:
    """Those at a place from `low` to `high`."""
    for index in range(bisect_left(headings, low, key=_place), len(headings)):
        if headings[index][0] > high:
            return
        yield headings[index]


def _place(marked: tuple[int, int]) -> int:
    return marked[0]
