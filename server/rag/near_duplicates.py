"""Finds texts that repeat another one: copies, versions of a page, what stands on every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.rag.words import has_digit, words_of

MIN_SIMILARITY = 0.9
"""Shared runs of three words among all of both. Two words changed in a hundred leave about as much."""


class NearDuplicates:
    """Remembers the texts that it is asked about, but for repetitions. Ask for the best text first.

    Texts with different numbers are different: a price list of another year is no copy.
    """

    def __init__(self) -> None:
        self._known: list[tuple[int, _Fingerprint]] = []
        self._num_texts = 0

    def original_of(self, text: str) -> int | None:
        """Tell which earlier text this one repeats, counted from 0 in the order of asking; None if it is new."""
        index = self._num_texts
        self._num_texts += 1
        fingerprint = _fingerprint(words_of(text))
        for original, known in self._known:
            if known.resembles(fingerprint):
                return original
        self._known.append((index, fingerprint))
        return None


@dataclass(frozen=True)
class _Fingerprint:
    """`runs` are all runs of three words; of a shorter text, itself."""

    runs: frozenset[tuple[str, ...]]
    numbers: frozenset[str]

    def resembles(self, other: _Fingerprint) -> bool:
        fewer, more = sorted((len(self.runs), len(other.runs)))
        if fewer < MIN_SIMILARITY * more or self.numbers != other.numbers:
            return False  # most pairs, at little cost
        num_shared = len(self.runs & other.runs)
        return num_shared >= MIN_SIMILARITY * (fewer + more - num_shared)


def _fingerprint(words: Sequence[str]) -> _Fingerprint:
    runs: frozenset[tuple[str, ...]] = frozenset(zip(words, words[1:], words[2:], strict=False))
    runs = runs or frozenset([tuple(words)])
    return _Fingerprint(runs, frozenset(filter(has_digit, words)))
