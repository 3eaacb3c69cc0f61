"""Finds texts that repeat another one: copies, versions of a page, what stands on every page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.rag.words import has_digit, words_of

MIN_SIMILARITY = 0.9
"""Shared runs of three words among all of both. Two words changed in a hundred leave about as much."""


class NearDuplicates:
    """Remembers the texts that it is asked about, but for repetitions. Ask for the best text first.

    Texts that differ in numbers are different: a price list of another year is no copy. So are texts of which one has a
    word of the queries: where two contracts are the same but for a name, whoever asks for that name wants that one.

    Args:
        queries: What is searched for.
    """

    def __init__(self, queries: Iterable[str] = ()) -> None:
        self._wanted = frozenset(word for query in queries for word in words_of(query))
        self._known: list[tuple[int, _Fingerprint]] = []
        self._num_texts = 0

    def original_of(self, text: str) -> int | None:
        """Tell which earlier text this one repeats, counted from 0 in the order of asking; None if it is new."""
        index = self._num_texts
        self._num_texts += 1
        fingerprint = self._fingerprint(words_of(text))
        for original, known in self._known:
            if known.resembles(fingerprint):
                return original
        self._known.append((index, fingerprint))
        return None

    def _fingerprint(self, words: Sequence[str]) -> _Fingerprint:
        runs: frozenset[tuple[str, ...]] = frozenset(zip(words, words[1:], words[2:], strict=False))
        telling = frozenset(word for word in words if has_digit(word) or word in self._wanted)
        return _Fingerprint(runs or frozenset([tuple(words)]), telling)


@dataclass(frozen=True)
class _Fingerprint:
    """`runs` are all runs of three words; of a shorter text, itself. `telling` are words that no copy may lack."""

    runs: frozenset[tuple[str, ...]]
    telling: frozenset[str]

    def resembles(self, other: _Fingerprint) -> bool:
        fewer, more = sorted((len(self.runs), len(other.runs)))
        if fewer < MIN_SIMILARITY * more or self.telling != other.telling:
            return False  # most pairs, at little cost
        num_shared = len(self.runs & other.runs)
        return num_shared >= MIN_SIMILARITY * (fewer + more - num_shared)
