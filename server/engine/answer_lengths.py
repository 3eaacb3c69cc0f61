"""How long answers get, learned from those that have ended: what admission expects instead of the worst case."""

from __future__ import annotations

from server.engine.sequence import Sequence

MIN_GROWTH = 32
"""Tokens that any running sequence is expected to grow yet, as far as it may: some go on for longer than most."""

_LEARNING = 0.1
_FIRST_GUESS = 128.0


class AnswerLengths:
    """The mean number of generated tokens, lately."""

    def __init__(self) -> None:
        self._mean = _FIRST_GUESS

    def observe(self, sequence: Sequence) -> None:
        """Learn from a complete answer. One that its own limit cut short only says how long it is at least."""
        is_cut = sequence.num_generated == sequence.max_tokens
        if sequence.num_generated > self._mean or not is_cut:
            self._mean += _LEARNING * (sequence.num_generated - self._mean)

    def expected_growth(self, sequence: Sequence) -> int:
        """Cells that the sequence will need beyond its present tokens."""
        expected = max(MIN_GROWTH, int(self._mean) - sequence.num_generated)
        return min(expected, self.largest_growth(sequence))

    def largest_growth(self, sequence: Sequence) -> int:
        """Cells that it may need at most."""
        return sequence.max_tokens - sequence.num_generated
