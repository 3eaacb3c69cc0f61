"""Random numbers that depend on seed and index alone, and penalties kept up to date token by token."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.sampler_state import SamplerState
from server.types import SamplingParams


def state(prompt: list[int] | None = None, generated: list[int] | None = None, **params: object) -> SamplerState:
    made = SamplerState(SamplingParams(**params), prompt or [1])  # type: ignore[arg-type]
    for token_id in generated or []:
        made.accept(token_id)
    return made


def deductions(made: SamplerState) -> dict[int, float]:
    assert made.seen is not None
    return dict(zip(made.seen.ids.tolist(), made.seen.deductions.tolist(), strict=True))


@given(st.integers(), st.lists(st.integers(0, 500), min_size=1))
def test_a_uniform_depends_on_seed_and_index_alone(seed: int, asked: list[int]) -> None:
    """In whatever order they are asked for, ahead of time or when their turn comes."""
    in_turn = state(seed=seed)
    numbers = []
    for _ in range(501):
        numbers.append(in_turn.uniform())
        in_turn.accept(0)

    drafted = state(seed=seed)

    assert [drafted.uniform(ahead) for ahead in asked] == [numbers[index] for index in asked]


def test_uniforms_are_spread_over_the_unit_interval() -> None:
    """Each tenth of it gets a tenth of them, within five standard deviations."""
    made = state(seed=3)

    numbers = [made.uniform(ahead) for ahead in range(10_000)]

    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert all(abs(count - 1000) < 150 for count in Counter(int(number * 10) for number in numbers).values())


@pytest.mark.parametrize("seed", [0, -5, 2**63, -(2**70)])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert state(seed=seed).uniform() == state(seed=seed).uniform()
    assert state(seed=seed).uniform() != state(seed=seed + 1).uniform()


def test_without_a_seed_no_two_sequences_draw_alike() -> None:
    assert state().uniform() != state().uniform()


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), max_size=60))
def test_seen_tokens_are_those_of_prompt_and_answer_and_counts_those_of_the_answer(
    prompt: list[int], generated: list[int]
) -> None:
    made = state(prompt, generated, repeat_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25)

    counts = Counter(generated)
    expected = {
        token_id: 0.5 + 0.25 * counts[token_id] if counts[token_id] else 0 for token_id in {*prompt, *generated}
    }
    assert deductions(made) == expected


def test_the_prompt_counts_for_repeats_only() -> None:
    assert deductions(state([3, 4], [5], presence_penalty=0.5)) == {5: 0.5}


@pytest.mark.parametrize("name", ["repeat_penalty", "presence_penalty", "frequency_penalty"])
def test_a_penalty_makes_a_sequence_depend_on_its_past(name: str) -> None:
    assert state(**{name: 0.5}).has_memory
    assert not state(top_k=3, logit_bias={1: 1.0}, ignore_eos=True, min_p=0.1).has_memory
