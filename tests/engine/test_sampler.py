"""Exact choices against naive twins, and distributions against the probabilities they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer
from server.engine.sampler import Sampler
from server.engine.sequence import Sequence
from server.types import SamplingParams

VOCAB_SIZE = 12
SAMPLER = Sampler(np.array([True] + [False] * (VOCAB_SIZE - 1)))


def sequence(sampling: SamplingParams, prompt: list[int] | None = None, generated: list[int] | None = None) -> Sequence:
    made = Sequence("r", prompt or [1], sampling, max_tokens=10, detokenizer=Detokenizer([b""] * VOCAB_SIZE))
    made.token_ids += generated or []
    return made


def draw_many(logits: list[float], sampling: SamplingParams, count: int = 4000) -> np.ndarray:
    """Shares of the tokens among many draws."""
    owner = sequence(sampling)
    rows = np.tile(np.array(logits, np.float32), (count, 1))
    return np.bincount(SAMPLER.sample(rows, [owner] * count), minlength=len(logits)) / count


def naive_shares(logits: list[float], sampling: SamplingParams) -> list[float]:
    """The definition, in plain Python: probabilities after top_k, top_p, min_p and temperature."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        weights = [math.exp(logits[i] - logits[order[0]]) for i in order]
        total, kept, reached = sum(weights), [], 0.0
        for i, weight in zip(order, weights, strict=True):
            if reached >= sampling.top_p:
                break
            kept.append(i)
            reached += weight / total
        order = kept
    if sampling.min_p:
        order = [i for i in order if math.exp(logits[i] - logits[order[0]]) >= sampling.min_p]
    weights_of = {i: math.exp((logits[i] - logits[order[0]]) / sampling.temperature) for i in order}
    total = sum(weights_of.values())
    return [weights_of.get(i, 0.0) / total for i in range(len(logits))]


LOGITS = [0.0, 2.0, 1.5, -1.0, 3.0, 0.5, 2.5, -2.0, 1.0, 0.2, -0.3, 0.9]


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(seed=1),
        SamplingParams(seed=2, temperature=0.5),
        SamplingParams(seed=3, temperature=1.7, top_k=5),
        SamplingParams(seed=4, top_p=0.7),
        SamplingParams(seed=5, min_p=0.2),
        SamplingParams(seed=6, temperature=0.8, top_k=8, top_p=0.9, min_p=0.05),
    ],
)
def test_draws_follow_the_distribution(sampling: SamplingParams) -> None:
    shares = draw_many(LOGITS, sampling)

    np.testing.assert_allclose(shares, naive_shares(LOGITS, sampling), atol=0.035)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=VOCAB_SIZE), st.integers(0, 12), st.floats(0.05, 1))
@settings(max_examples=100)
def test_nothing_outside_the_truncated_set_is_drawn(logits: list[float], top_k: int, top_p: float) -> None:
    sampling = SamplingParams(seed=0, top_k=top_k, top_p=top_p)
    allowed = naive_shares(
        [float(np.float32(x)) for x in logits], SamplingParams(top_k=top_k, top_p=min(1, top_p + 1e-6))
    )

    shares = draw_many(logits, sampling, count=50)

    assert not np.any((shares > 0) & (np.array(allowed) == 0))


def test_temperature_zero_is_greedy() -> None:
    assert draw_many(LOGITS, SamplingParams(temperature=0), count=3)[4] == 1


def test_same_seed_same_tokens() -> None:
    def draws(seed: int) -> list[int]:
        owner = sequence(SamplingParams(seed=seed))
        return SAMPLER.sample(np.tile(np.array(LOGITS, np.float32), (20, 1)), [owner] * 20)

    assert draws(7) == draws(7)
    assert draws(7) != draws(8)


def test_a_negative_seed_is_a_seed() -> None:
    assert sequence(SamplingParams(seed=-5)).random.random() == sequence(SamplingParams(seed=-5)).random.random()


def test_penalties_lower_what_has_been_said() -> None:
    """OpenAI's formula: presence once, frequency per occurrence, generated tokens only."""
    row = np.zeros((1, VOCAB_SIZE), np.float32)
    sampling = SamplingParams(temperature=0, presence_penalty=0.5, frequency_penalty=0.25)

    SAMPLER.sample(row, [sequence(sampling, prompt=[3], generated=[5, 5, 6])])

    assert row[0, 5] == pytest.approx(-1.0)
    assert row[0, 6] == pytest.approx(-0.75)
    assert row[0, 3] == 0


def test_repeat_penalty_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    row = np.array([[2.0, -2.0, 1.0] + [0.0] * 9], np.float32)

    SAMPLER.sample(row, [sequence(SamplingParams(temperature=0, repeat_penalty=2.0), prompt=[0], generated=[1])])

    assert row[0, :3].tolist() == [1.0, -4.0, 1.0]


def test_logit_bias_decides() -> None:
    assert draw_many(LOGITS, SamplingParams(temperature=0, logit_bias={4: -100.0, 9: 100.0}), count=1)[9] == 1


def test_ignore_eos_never_ends() -> None:
    shares = draw_many([50.0] + [0.0] * 11, SamplingParams(seed=1, ignore_eos=True), count=200)

    assert shares[0] == 0


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_a_tiny_temperature_is_almost_greedy(temperature: float) -> None:
    """Also where logits / temperature is beyond what a float holds."""
    assert draw_many(LOGITS, SamplingParams(temperature=temperature, seed=1), count=20)[4] == 1
