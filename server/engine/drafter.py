"""Prompt-lookup drafting: guess that a text goes on as it did the last time its latest tokens stood there.

The model computes the guesses together with the next token and says at each whether it is right; wrong ones are thrown
away, so drafting never changes a text, only how many tokens a step yields. Answers that quote their context gain most.
Idea: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding

A draft costs time whether it is right or not. So as many tokens are drafted as raise the expected yield per second: by
what a token adds to a step (`StepCost`) and by how often this sequence's guesses have been right. Guesses are
made, and judged by what came, even while none is worth computing: that is how drafting comes back.
"""

from __future__ import annotations

from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import TokenIds

MAX_DRAFT = 8
MAX_SEQUENCES = 4
"""Live sequences up to which drafts are made: with more of them a step's compute is used well enough."""

LENGTHS = (4, 2)
"""Latest tokens that must have stood there before: the longer one is tried first."""

_FIRST_TRUST = 0.5
_LEARNING = 0.15


class Drafter:
    """Makes drafts and learns from what becomes of them."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._guesses: dict[str, _Guesses] = {}

    def draft(self, decoding: list[Sequence]) -> list[TokenIds]:
        """Propose the next tokens but one for each decoding sequence, each at most what its `max_tokens` leaves."""
        if not 0 < len(decoding) <= MAX_SEQUENCES:
            return [[] for _ in decoding]
        guesses = [self._look_up(sequence) for sequence in decoding]
        return self._choose(guesses)

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._guesses.pop(sequence.request_id, None)

    def _look_up(self, sequence: Sequence) -> _Guesses:
        guesses = self._guesses.get(sequence.request_id)
        if guesses is None:
            guesses = self._guesses[sequence.request_id] = _Guesses()
        room = sequence.max_tokens - sequence.num_generated - 1
        guesses.look_up(sequence.token_ids, 0 if sequence.sampler_state.has_penalties else min(room, MAX_DRAFT))
        return guesses

    def _choose(self, guesses: list[_Guesses]) -> list[TokenIds]:
        """Add the likeliest token of all while it yields more per second than the step without it."""
        expected = float(len(guesses))  # tokens that the step yields
        seconds = self._cost.of_small_step(len(guesses))
        lengths = [0] * len(guesses)
        while True:
            chances = [each.chance_of(length) for each, length in zip(guesses, lengths, strict=True)]
            best = max(range(len(guesses)), key=chances.__getitem__)
            if chances[best] * seconds <= self._cost.small_step_s_per_token * expected:
                break
            lengths[best] += 1
            expected += chances[best]
            seconds += self._cost.small_step_s_per_token
        return [each.next[:length] for each, length in zip(guesses, lengths, strict=True)]


class _Guesses:
    """Where each short run of tokens of one sequence stood last, and how well that told what came.

    Attributes:
        next: The latest guess.
        trust: How often the first token of a guess has been right, lately.
    """

    def __init__(self) -> None:
        self.next: TokenIds = []
        self.trust = _FIRST_TRUST
        self._guessed_at = 0  # number of tokens when `next` was guessed
        self._ends: dict[tuple[int, ...], int] = {}  # run -> index of the token after it
        self._num_indexed = 0

    def chance_of(self, index: int) -> float:
        """That the guess is right up to and including this token of it."""
        return self.trust ** (index + 1) if index < len(self.next) else 0.0

    def look_up(self, token_ids: TokenIds, max_tokens: int) -> None:
        self._learn(token_ids)
        self._index(token_ids)
        self._guessed_at = len(token_ids)
        self.next = []
        for length in LENGTHS:
            at = self._ends.get(tuple(token_ids[-length:]))
            if at is not None:
                period = len(token_ids) - at  # the guess may run into itself: "1 2 1 2" goes on "1 2 1 2 1"
                self.next = [token_ids[at + n % period] for n in range(max_tokens)]
                break

    def _learn(self, token_ids: TokenIds) -> None:
        """Judge the tokens of the last guess that can be judged: up to the first wrong one, as far as text has come."""
        for guess, token_id in zip(self.next, token_ids[self._guessed_at :], strict=False):
            self.trust += _LEARNING * ((guess == token_id) - self.trust)
            if guess != token_id:
                break

    def _index(self, token_ids: TokenIds) -> None:
        """Enter the runs that end before the last token; the last ones have nothing after them yet."""
        for end in range(max(self._num_indexed, 1), len(token_ids)):
            for length in LENGTHS:
                if end >= length:
                    self._ends[tuple(token_ids[end - length : end])] = end
        self._num_indexed = max(self._num_indexed, len(token_ids))
