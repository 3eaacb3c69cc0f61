"""Chunks that nobody wrote, as many as are wanted: words as common as in an English text, vectors in clusters.

The same seed gives the same corpus. Vectors and words of a chunk have nothing to do with each other: what is measured
with them is time, not quality.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIMENSIONS = 384
WORDS_PER_CHUNK = 110
CHUNKS_PER_DOCUMENT = 20

_VOCABULARY = 40_000
_NUM_COMMON = 120  # words that any sentence is full of
_NUM_CLUSTERS = 1000
_SPREAD = 0.9  # of a cluster, as norm: neighbours within one have a cosine of about 0.55
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class CorpusDocument:
    """`vectors` float32 [num_chunks, dimensions]; `number` counts from 0 over the corpus."""

    number: int
    texts: list[str]
    vectors: npt.NDArray[np.float32]


class Corpus:
    """Documents one after the other, and queries as people would ask of them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._words = [_word(number) for number in range(_VOCABULARY)]
        shares = 1 / (np.arange(_VOCABULARY) + 2.7)
        self._limits = np.cumsum(shares / shares.sum())
        self._centres = _normal(self._random.normal(size=(_NUM_CLUSTERS, DIMENSIONS)))

    def documents(self) -> Iterator[CorpusDocument]:
        number = 0
        while True:
            ranks = self._ranks(CHUNKS_PER_DOCUMENT * WORDS_PER_CHUNK).reshape(CHUNKS_PER_DOCUMENT, -1)
            yield CorpusDocument(number, [self._text(row) for row in ranks], self.vectors(CHUNKS_PER_DOCUMENT))
            number += 1

    def vectors(self, num_rows: int) -> npt.NDArray[np.float32]:
        """Of chunks, or of queries: these lie among them."""
        centres = self._centres[self._random.integers(_NUM_CLUSTERS, size=num_rows)]
        noise = self._random.normal(size=(num_rows, DIMENSIONS)) * (_SPREAD / np.sqrt(DIMENSIONS))
        return _normal(centres + noise)

    def question(self) -> str:
        """Three to ten words, as common as those of the texts."""
        return self._text(self._ranks(int(self._random.integers(3, 11))))

    def common_question(self) -> str:
        """Four words that are everywhere."""
        return self._text(self._random.integers(_NUM_COMMON, size=4))

    def _ranks(self, num_words: int) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._limits, self._random.random(num_words))

    def _text(self, ranks: npt.NDArray[np.int64]) -> str:
        return " ".join(self._words[rank] for rank in ranks)


def _word(number: int) -> str:
    """Each another one, which no stemmer changes."""
    word = ""
    while number or not word:
        number, digit = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[digit]
    return f"{word}k"


def _normal(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)
