"""Citations in an answer: `[1]`, `[1, 3]`, `[2-4]`, `[1][2]`, and the same in `【】`, are numbers of sources.

A number that names no source never reaches the client. `[2, 9]` with three sources becomes `[2]`; `[9]` goes, with the
space before it. All other brackets stay as they are:

- code, in fences, or in back-ticks that end on the same line and within `_MAX_HELD` characters;
- links and images, `[1](…)`, and what a backslash stands before;
- what holds anything but numbers, `[x]`, `[^1]`, `[-1, 1]`, or is longer than `_MAX_HELD`;
- lists and ranges with a 0, `[0, 1]`, `[0-9]`, which are intervals. `[0]` is none, and names no source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_HELD = 256
"""Characters that are held back until it is clear what they are."""

_PLAIN = re.compile(r"(?:[^ \[【`\\]+| (?=[^\[【]))+")  # not possessive: Python before 3.11.5 then takes too much
_NUMBERS = r"\d+(?: *[-–—] *\d+)?"
_MARK = re.compile(rf"([\[【]) *({_NUMBERS}(?: *[,;] *{_NUMBERS})*) *([\]】])")
_BEGINNING_OF_MARK = re.compile(r"[\[【][\d ,;–—-]*")
_END_OF_BEGINNING = re.compile(r"[\[【][\d ,;–—-]*\Z")
_RUN_OF_TICKS = re.compile(rf"`{{1,{_MAX_HELD}}}")
_BEFORE_FENCE = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)])\s+)?")
_FENCE_END = re.compile(r"[\s>]*(`+)\s*")


@dataclass(frozen=True, slots=True)
class Citation:
    """A mark in the answer, at `start` to `end` of the text as sent, in code points, and the numbers in it.

    A mark of the server's (see `attribution.py`) has no width.
    """

    start: int
    end: int
    numbers: tuple[int, ...]


class CitationFilter:
    """Passes on an answer as it comes, without numbers that name no source. However it is cut, the outcome is the same.

    Some characters are held back where a mark or code begins, or may begin.

    Attributes:
        citations: Those in the text that was passed on so far, in order.
        num_removed: Numbers, or ranges of them, that named no source.
    """

    def __init__(self, num_sources: int) -> None:
        self.citations: list[Citation] = []
        self.num_removed = 0
        self._num_sources = num_sources
        self._held = ""
        self._passed: list[str] = []  # of this call
        self._num_passed = 0
        self._line = ""  # the beginning of the line that is being passed on
        self._tail = ""  # the end of all that was passed on
        self._gap = -1  # where a mark was removed last, in what was passed on
        self._fence = 0  # back-ticks that the fence began with; 0 outside of one

    def feed(self, text: str) -> str:
        """Take more of the answer, and return what can be sent now."""
        return self._filter(text, is_last=False)

    def finish(self) -> str:
        """Return what was held back. The answer is over."""
        return self._filter("", is_last=True)

    def _filter(self, more: str, *, is_last: bool) -> str:
        text = self._held + more
        position = 0
        while position < len(text):
            next_position = self._advance(text, position, is_last=is_last)
            if next_position is None:
                break
            position = next_position
        self._held = text[position:]
        passed, self._passed = "".join(self._passed), []
        return passed

    def _advance(self, text: str, position: int, *, is_last: bool) -> int | None:
        """Deal with what begins at a position. Return where that ends, or None where the text to come decides."""
        if self._fence:
            return self._pass_fenced(text, position)
        if plain := _PLAIN.match(text, position):
            return self._pass(text, position, plain.end())
        if text[position] == "`":
            return self._pass_code(text, position, is_last=is_last)
        if position + 1 == len(text) and not is_last:
            return None  # a bracket, or a back-slash or space before one
        if text[position] == "\\":
            return self._pass(text, position, position + 2)
        return self._pass_mark(text, position, is_last=is_last)

    def _pass(self, text: str, start: int, end: int) -> int:
        self._pass_all(text[start:end])
        return min(end, len(text))

    def _pass_all(self, part: str) -> None:
        if self._gap == self._num_passed and self._tail.endswith("`") and part.startswith("`"):
            part = "…" + part  # or a run of back-ticks would be longer than it was, and not mean the same
        self._passed.append(part)
        self._num_passed += len(part)
        _, newline, line = part.rpartition("\n")
        self._line = (line if newline else self._line + line)[:_MAX_HELD]
        self._tail = (self._tail + part)[-_MAX_HELD:]

    # ---- marks

    def _pass_mark(self, text: str, position: int, *, is_last: bool) -> int | None:
        """Pass on a citation, or the bracket or space that stands there."""
        bracket = position + (text[position] == " ")
        mark = _MARK.match(text, bracket, bracket + _MAX_HELD)
        if mark is None:
            may_come = len(text) - bracket < _MAX_HELD and _BEGINNING_OF_MARK.fullmatch(text, bracket)
            return None if may_come and not is_last else self._pass(text, position, position + 1)
        if mark.end() == len(text) and not is_last:
            return None  # a link, perhaps
        items = [_range(item) for item in re.split("[,;]", mark[2])]
        is_interval = items != [(0, 0)] and any(low == 0 for low, _ in items)
        if is_interval or text.startswith("(", mark.end()):
            return self._pass(text, position, mark.end())
        self._cite(text[position:bracket], mark, items)
        return mark.end()

    def _cite(self, space: str, mark: re.Match[str], items: list[tuple[int, int]]) -> None:
        num_wrong = sum(low < 1 or high > self._num_sources for low, high in items)
        ranges = [range(max(low, 1), min(high, self._num_sources) + 1) for low, high in items]
        numbers = tuple(dict.fromkeys(number for numbers in ranges for number in numbers))
        self.num_removed += num_wrong
        if numbers:
            kept = mark[1] + ", ".join(map(str, numbers)) + mark[3] if num_wrong else mark[0]
            self._pass_all(space + kept)
            self.citations.append(Citation(self._num_passed - len(kept), self._num_passed, numbers))
            return
        if _END_OF_BEGINNING.search(self._tail):
            self._pass_all("…")  # or what stands around it, "[8[9]]", would make a new mark
        self._gap = self._num_passed

    # ---- code

    def _pass_code(self, text: str, position: int, *, is_last: bool) -> int | None:
        """Pass on code in back-ticks, or the line that opens a fence. Back-ticks of neither are passed on alone."""
        opening = _RUN_OF_TICKS.match(text, position)
        assert opening
        num_ticks = opening.end() - position
        limit = opening.end() + _MAX_HELD
        if opening.end() == len(text) and num_ticks < _MAX_HELD and not is_last:
            return None
        newline = text.find("\n", opening.end(), limit)
        line_end = min(limit, len(text)) if newline < 0 else newline
        for ticks in _RUN_OF_TICKS.finditer(text, opening.end(), line_end):
            if ticks.end() == len(text) < limit and not is_last:
                return None  # more of them may come
            if ticks.end() - ticks.start() == num_ticks:
                return self._pass(text, position, ticks.end())
        if newline >= 0 and num_ticks >= 3 and _BEFORE_FENCE.fullmatch(self._line):
            self._fence = num_ticks
            return self._pass(text, position, newline + 1)
        if newline < 0 and len(text) < limit and not is_last:
            return None
        return self._pass(text, position, opening.end())

    def _pass_fenced(self, text: str, position: int) -> int:
        newline = text.find("\n", position)
        if newline < 0:
            return self._pass(text, position, len(text))
        closing = _FENCE_END.fullmatch((self._line + text[position:newline])[:_MAX_HELD])
        if closing and len(closing[1]) >= self._fence:
            self._fence = 0
        return self._pass(text, position, newline + 1)


def _range(item: str) -> tuple[int, int]:
    numbers = [int(number) for number in re.split("[-–—]", item)]
    return min(numbers), max(numbers)
