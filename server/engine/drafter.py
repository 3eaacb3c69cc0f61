"""Prompt-lookup drafting: guess that a text goes on as it did the last times its latest tokens stood there.

The model computes the guesses together with the next token and says at each whether it is right; wrong ones are thrown
away, so drafting never changes a text, only how many tokens a step yields. Answers that quote their context gain most,
and those that a client has predicted.
Idea: Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding

A draft costs time whether it is right or not. So tokens are drafted one by one while each raises the expected yield per
second: by what a token adds to a step (`StepCost`), and by how often guesses on such evidence have been right. Guesses
are made, and judged by what came, even while none is worth computing: that is how drafting comes back.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import TokenIds

MAX_DRAFT = 8
MAX_SEQUENCES = 4
"""Live sequences up to which drafts are made: with more, a step uses the processor well enough."""

LENGTHS = (4, 2)
"""Latest tokens that must have stood there before: the longer one is tried first."""

NUM_PLACES = 3
"""Latest places that are asked. Where they disagree a guess is worth little: names and numbers in a list of facts."""

MAX_INDEXED = 4096
"""Latest tokens of a text that are searched: entering more of a long prompt at once would be felt as a gap."""

_FIRST_TRUST = 0.5
_LEARNING = 0.1


class _Evidence(NamedTuple):
    """What speaks for a guess: how many tokens agree, at how many places, and how many of these go on like that."""

    length: int
    num_places: int
    num_agreeing: int


_Trust = dict[_Evidence, float]
"""How often guesses on each evidence have been right, lately; of all sequences together."""


class Drafter:
    """Makes drafts and learns from what becomes of them."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._trust: _Trust = defaultdict(lambda: _FIRST_TRUST)
        self._texts: dict[str, _Text] = {}

    def draft(self, decoding: list[Sequence]) -> list[TokenIds]:
        """Propose the next tokens but one for each decoding sequence, each at most what its `max_tokens` leaves."""
        if not 0 < len(decoding) <= MAX_SEQUENCES:
            return [[] for _ in decoding]
        texts = [self._read(sequence) for sequence in decoding]
        lengths = self._choose_lengths(texts)
        return [text.guessed_ids[:length] for text, length in zip(texts, lengths, strict=True)]

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._texts.pop(sequence.request_id, None)

    def _read(self, sequence: Sequence) -> _Text:
        text = self._texts.get(sequence.request_id)
        if text is None:
            text = _Text(sequence.token_ids, self._trust)
            text.predict(sequence.prediction, at=sequence.num_prompt_tokens)
            self._texts[sequence.request_id] = text
        room = sequence.max_tokens - sequence.num_generated - 1
        text.read(max_guesses=0 if sequence.sampler_state.has_memory else min(room, MAX_DRAFT))
        return text

    def _choose_lengths(self, texts: list[_Text]) -> list[int]:
        """Add the likeliest token of all while it yields more per second than the step without it."""
        s_per_token = self._cost.decode_s_per_token
        seconds = self._cost.of_decode_step(len(texts))
        expected = float(len(texts))  # tokens that the step yields
        lengths = [0] * len(texts)
        chances = [text.guess() for text in texts]
        while True:
            best = max(range(len(texts)), key=chances.__getitem__)
            if chances[best] * seconds <= s_per_token * expected:
                return lengths
            lengths[best] += 1
            expected += chances[best]
            seconds += s_per_token
            chances[best] *= texts[best].guess()


class _Text:
    """What came behind each short run of tokens of one sequence the last times, and what that says about what comes.

    Args:
        token_ids: The sequence's own list, which grows.
    """

    def __init__(self, token_ids: TokenIds, trust: _Trust) -> None:
        self._token_ids = token_ids
        self._trust = trust
        self._followers: dict[tuple[int, ...], list[int]] = {}  # run -> the tokens after it, the latest last
        self._num_indexed = 0
        self._num_read = 0
        self._max_guesses = 0
        self._evidence: list[_Evidence] = []
        self.guessed_ids: TokenIds = []

    def predict(self, prediction: TokenIds, *, at: int) -> None:
        """Take in a text as if it had come at this place: it counts for more than what has been before."""
        if prediction:
            self._index()
            before = self._token_ids[max(0, at - max(LENGTHS)) : at]
            self._enter(before + prediction[:MAX_INDEXED], len(before))

    def read(self, *, max_guesses: int) -> None:
        """Judge the last guesses by what came, and take note of it; then new guesses may be made."""
        for guess, evidence, token_id in zip(
            self.guessed_ids, self._evidence, self._token_ids[self._num_read :], strict=False
        ):
            self._trust[evidence] += _LEARNING * ((guess == token_id) - self._trust[evidence])
            if guess != token_id:
                break
        self._index()
        self._num_read = len(self._token_ids)
        self._max_guesses = max_guesses
        self.guessed_ids, self._evidence = [], []

    def guess(self) -> float:
        """Add a guess behind those made; return its chance, if these are right. 0 if there is none."""
        if len(self.guessed_ids) < self._max_guesses:
            latest = tuple(self._token_ids[-max(LENGTHS) :] + self.guessed_ids)
            for length in LENGTHS:
                if seen := self._followers.get(latest[-length:]):
                    self.guessed_ids.append(seen[-1])
                    self._evidence.append(_Evidence(length, len(seen), seen.count(seen[-1])))
                    return self._trust[self._evidence[-1]]
        return 0.0

    def _index(self) -> None:
        """Enter the runs that end before the last token; the last ones have nothing after them yet."""
        token_ids = self._token_ids
        self._enter(token_ids, max(self._num_indexed, len(token_ids) - MAX_INDEXED, 1))
        self._num_indexed = len(token_ids)

    def _enter(self, token_ids: TokenIds, start: int) -> None:
        for end in range(start, len(token_ids)):
            for length in LENGTHS:
                if end >= length:
                    seen = self._followers.setdefault(tuple(token_ids[end - length : end]), [])
                    seen.append(token_ids[end])
                    del seen[:-NUM_PLACES]
