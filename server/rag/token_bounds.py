"""Where a text may be cut between tokens, and how many tokens lie between two such places."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.int32]

MAX_CHARS_PER_TOKEN = 64
"""A tokenizer may take a word of any length for one unknown token, and no space for a token. What is longer counts as
several tokens, and may be cut: otherwise a file of one word would be one chunk."""


class TokenBounds:
    """The places before each token, numbered from 0; the last is the end of the text.

    Whatever has no tokens (space, signs that the tokenizer drops) belongs to the token before it. Tokens that begin at
    the same character are one: half a character cannot be cut off.

    Attributes:
        offsets: Of each place in the text; the first is 0.
    """

    def __init__(self, text: str, tokens: npt.NDArray[np.int32]) -> None:
        """`tokens` is int32 [num_tokens, 2]: start and end of each in the text, in order."""
        starts, counts = _cut_long(*_distinct(tokens[:, 0].astype(np.int32)), len(text))
        # Arrays of four bytes each, which a list would not be: a large document has millions of tokens.
        self.offsets = array("i", np.append(starts, np.int32(len(text))).tobytes())
        self._tokens_before = array("i", np.cumsum(np.append(0, counts), dtype=np.int32).tobytes())

    @property
    def last(self) -> int:
        """The end of the text."""
        return len(self.offsets) - 1

    def num_tokens(self, start: int, end: int) -> int:
        """Count the tokens between two places."""
        return self._tokens_before[end] - self._tokens_before[start]

    def furthest(self, start: int, max_tokens: int) -> int:
        """The last place that is at most `max_tokens` behind `start`."""
        return bisect_right(self._tokens_before, self._tokens_before[start] + max_tokens, lo=start) - 1

    def nearest(self, start: int, min_tokens: int) -> int:
        """The first place that is at least `min_tokens` behind `start`; beyond `last` if there is none."""
        return bisect_left(self._tokens_before, self._tokens_before[start] + min_tokens, lo=start)

    def earliest(self, end: int, max_tokens: int) -> int:
        """The first place that is at most `max_tokens` before `end`."""
        return bisect_left(self._tokens_before, self._tokens_before[end] - max_tokens, hi=end)

    def at(self, offset: int) -> int:
        """The first place at or behind an offset."""
        return bisect_left(self.offsets, offset)

    def holding(self, offset: int) -> int:
        """The place before the token that an offset is in."""
        return bisect_right(self.offsets, offset) - 1


def _distinct(starts: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Each start once, the first being 0, with the number of tokens there."""
    if not starts.size:
        return np.zeros(1, np.int32), np.ones(1, np.int32)
    starts = np.maximum.accumulate(starts)
    first = np.flatnonzero(np.diff(starts, prepend=np.int32(-1)))
    counts = np.diff(first, append=starts.size).astype(np.int32)
    starts = starts[first]
    starts[0] = 0
    return starts, counts


def _cut_long(starts: _Numbers, counts: _Numbers, end: int) -> tuple[_Numbers, _Numbers]:
    """Put places into stretches of more than `MAX_CHARS_PER_TOKEN`."""
    num_parts = np.maximum(1, -(-np.diff(starts, append=np.int32(end)) // MAX_CHARS_PER_TOKEN))
    if (num_parts == 1).all():
        return starts, counts
    whole = np.repeat(np.arange(starts.size), num_parts)
    part = np.arange(whole.size) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    offsets = starts[whole] + part * MAX_CHARS_PER_TOKEN
    return offsets.astype(np.int32), np.where(part, 1, counts[whole]).astype(np.int32)
