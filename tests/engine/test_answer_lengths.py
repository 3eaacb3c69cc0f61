from __future__ import annotations

from server.engine.answer_lengths import MIN_GROWTH, AnswerLengths
from server.engine.sequence import Sequence
from server.types import SamplingParams


def make_sequence(*, num_generated: int = 0, max_tokens: int = 1000) -> Sequence:
    sequence = Sequence("a", [1], SamplingParams(), max_tokens=max_tokens)
    for _ in range(num_generated):
        sequence.append(1)
    return sequence


def test_answers_are_expected_to_be_as_long_as_the_last_ones() -> None:
    lengths = AnswerLengths()
    for _ in range(100):
        lengths.observe(make_sequence(num_generated=300))

    assert 295 <= lengths.expected_growth(make_sequence()) <= 300
    assert 195 <= lengths.expected_growth(make_sequence(num_generated=100)) <= 200


def test_answers_that_were_cut_short_say_nothing() -> None:
    lengths = AnswerLengths()
    for _ in range(100):
        lengths.observe(make_sequence(num_generated=1, max_tokens=1))

    assert lengths.expected_growth(make_sequence()) > 100


def test_an_answer_beyond_the_mean_may_still_grow() -> None:
    assert AnswerLengths().expected_growth(make_sequence(num_generated=900)) == MIN_GROWTH


def test_no_answer_grows_beyond_its_limit() -> None:
    assert AnswerLengths().expected_growth(make_sequence(num_generated=10, max_tokens=12)) == 2
