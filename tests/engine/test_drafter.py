"""What is guessed, and how much of it is worth computing."""

from __future__ import annotations

import pytest

from server.engine.drafter import MAX_DRAFT, MAX_SEQUENCES, Drafter
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import SamplingParams

PLAIN = SamplingParams(temperature=0)


def make_sequence(
    tokens: list[int],
    *,
    name: str = "a",
    max_tokens: int = 1000,
    sampling: SamplingParams = PLAIN,
    prediction: list[int] | None = None,
) -> Sequence:
    sequence = Sequence(name, tokens[:-1], sampling, max_tokens=max_tokens, prediction=prediction)
    sequence.append(tokens[-1])
    return sequence


def cost_of(*, s_per_step: float = 1.0, s_per_token: float = 0.0) -> StepCost:
    cost = StepCost()
    for _ in range(20):
        for num_tokens in (1, 2, 3):
            seconds = s_per_step + s_per_token * num_tokens
            cost.observe(num_prompt_tokens=0, num_decode_tokens=num_tokens, seconds=seconds)
    return cost


@pytest.mark.parametrize(
    ("tokens", "guess"),
    [
        ([1, 2, 3, 4, 5, 1, 2], [3, 4, 5, 1, 2, 3, 4, 5]),  # as after the last "1 2", and over into itself
        ([1, 2, 7, 8, 1, 2, 9, 5, 1, 2], [9, 5, 1, 2, 9, 5, 1, 2]),  # the latest of two places
        ([4, 4, 1, 2, 7, 3, 5, 1, 2, 8, 4, 4, 1, 2], [7, 3, 5, 1, 2, 8, 4, 4]),  # four alike count for more than two
        ([1, 2, 3, 4], []),
    ],
)
def test_a_text_is_expected_to_go_on_as_it_did(tokens: list[int], guess: list[int]) -> None:
    assert Drafter(cost_of()).draft([make_sequence(tokens)]) == [guess]


@pytest.mark.parametrize(
    ("tokens", "prediction", "guess"),
    [
        ([1, 2, 3], [3, 4, 5, 6], [4, 5, 6]),  # begins as predicted: the border to the prompt counts
        ([1, 2, 9, 4, 5], [3, 4, 5, 6, 7], [6, 7]),  # comes back to it
        ([4, 5, 9, 1, 4, 5], [4, 5, 6], [6]),  # it counts for more than the prompt
        ([1, 2], [7], []),
    ],
)
def test_a_text_is_expected_to_go_on_as_predicted(tokens: list[int], prediction: list[int], guess: list[int]) -> None:
    assert Drafter(cost_of()).draft([make_sequence(tokens, prediction=prediction)]) == [guess]


def test_no_more_is_drafted_than_the_answer_may_have() -> None:
    [draft] = Drafter(cost_of()).draft([make_sequence([1, 2, 3, 1, 2], max_tokens=4)])

    assert draft == [3, 1]  # one generated, one to come by itself


def test_nothing_is_drafted_before_a_step_has_been_timed() -> None:
    assert Drafter(StepCost()).draft([make_sequence([1, 2, 3, 1, 2])]) == [[]]


def test_nothing_is_drafted_where_each_token_costs_as_much_as_a_step() -> None:
    drafter = Drafter(cost_of(s_per_step=0.01, s_per_token=1.0))

    assert drafter.draft([make_sequence([1, 2, 3, 1, 2])]) == [[]]


def test_wrong_guesses_end_drafting_and_right_ones_bring_it_back() -> None:
    drafter = Drafter(cost_of(s_per_step=1.0, s_per_token=0.3))
    sequence = make_sequence([1, 2, 3, 4, 1, 2])
    assert drafter.draft([sequence])[0]

    for token in range(10, 30):  # 3 was guessed after "1 2", and something else came each time
        for each in (token, 1, 2):
            sequence.append(each)
            [draft] = drafter.draft([sequence])
    assert draft == []

    for token in [5, 6, 7] * 15:
        sequence.append(token)
        [draft] = drafter.draft([sequence])
    assert len(draft) == MAX_DRAFT


def test_the_likelier_of_two_gets_the_longer_draft() -> None:
    drafter = Drafter(cost_of(s_per_step=1.0, s_per_token=0.2))
    sure, unsure = make_sequence([1, 2] * 3, name="sure"), make_sequence([1, 2, 3, 4, 1, 2], name="unsure")
    drafter.draft([sure, unsure])
    for n in range(20):
        sure.append([1, 2][n % 2])
        unsure.append([30 + n, 1, 2][n % 3])
        long, short = drafter.draft([sure, unsure])

    assert len(long) > len(short)


def test_many_live_sequences_are_not_drafted_for() -> None:
    sequences = [make_sequence([1, 2, 3, 1, 2], name=str(n)) for n in range(MAX_SEQUENCES + 1)]

    assert Drafter(cost_of()).draft(sequences) == [[]] * len(sequences)


def test_penalised_sequences_are_not_drafted_for() -> None:
    sampling = SamplingParams(temperature=0, frequency_penalty=1)

    assert Drafter(cost_of()).draft([make_sequence([1, 2, 3, 1, 2], sampling=sampling)]) == [[]]
