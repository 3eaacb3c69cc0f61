"""Exact choices against naive twins, and distributions against the probabilities they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer
from server.engine.sampler import NO_TOKEN, Sampler
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


def random_rows(seed: int, *, vocab_size: int, num_rows: int) -> np.ndarray:
    """Peaked, flat and tied logits."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((num_rows, vocab_size)) * random.choice([0.1, 1.0, 3.0, 8.0])
    return (np.round(rows * 2) / 2 if seed % 3 == 0 else rows).astype(np.float32)


@pytest.mark.parametrize("vocab_size", [12, 500, 1024, 2048, 5000, 49152])
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 2000},
        {"top_p": 0.0},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"min_p": 0.05},
        {"top_k": 100, "top_p": 0.95, "min_p": 0.01},
    ],
)
def test_the_candidates_are_exactly_those_of_a_full_sort(vocab_size: int, options: dict[str, float]) -> None:
    """However few logits are looked at first, the draw is that of the naive twin, which sorts everything."""
    for seed in range(4):
        rows = random_rows(seed, vocab_size=vocab_size, num_rows=3)
        sampling = SamplingParams(seed=seed, temperature=0.7, **options)  # type: ignore[arg-type]

        token_ids = sampler(vocab_size).sample(rows.copy(), [sequence(sampling) for _ in rows])

        assert token_ids == [naive_draw(row, sampling) for row in rows]


def test_rows_with_different_options_do_not_disturb_each_other() -> None:
    samplings = [
        SamplingParams(seed=1, temperature=0),
        SamplingParams(seed=2, top_k=40),
        SamplingParams(seed=3),
        SamplingParams(seed=4, top_p=0.5, temperature=1.5),
        SamplingParams(seed=5, min_p=0.3),
    ]
    rows = random_rows(7, vocab_size=5000, num_rows=5)

    together = sampler(5000).sample(rows.copy(), [sequence(each) for each in samplings])

    alone = [sampler(5000).sample(rows[i : i + 1].copy(), [sequence(each)])[0] for i, each in enumerate(samplings)]
    assert together == alone


def test_an_untruncated_draw_follows_the_whole_distribution() -> None:
    """Over several stretches of columns, each token as often as its probability says."""
    rows = np.zeros((1, 3000), np.float32)
    rows[0, [5, 1500, 2999]] = 9.0
    shares = np.bincount(
        sampler(3000).sample(np.tile(rows, (3000, 1)), [sequence(SamplingParams(seed=1))] * 3000), minlength=3000
    )

    expected = np.exp(9.0) / (3 * np.exp(9.0) + 2997)
    np.testing.assert_allclose(shares[[5, 1500, 2999]] / 3000, expected, atol=0.03)


def test_a_row_of_nonsense_gives_no_token_and_disturbs_no_other() -> None:
    rows = random_rows(1, vocab_size=3000, num_rows=4)
    rows[1, 700] = np.nan
    rows[2] = -np.inf
    sequences = [sequence(SamplingParams(seed=n, top_k=40)) for n in range(4)]

    token_ids = sampler(3000).sample(rows.copy(), sequences)

    assert token_ids[1:3] == [NO_TOKEN, NO_TOKEN]
    assert token_ids[0] == naive_draw(rows[0], sequences[0].sampling)
    assert token_ids[3] == naive_draw(rows[3], sequences[3].sampling)


def sampler(vocab_size: int) -> Sampler:
    return Sampler(np.zeros(vocab_size, np.bool_))


def naive_draw(row: np.ndarray, sampling: SamplingParams) -> int:
    """Sort everything, cut, and walk along the cumulated shares; what nothing cuts is walked in order of id."""
    kept = len(row) if not sampling.top_k else min(sampling.top_k, len(row))
    is_cut = kept < len(row) or sampling.top_p < 1 or sampling.min_p > 0
    order = np.argsort(-row, kind="stable") if is_cut else np.arange(len(row))
    values = row[order].astype(np.float64)
    weights = np.exp(values[:kept] - values.max())
    if sampling.top_p < 1:
        kept = max(1, int(np.count_nonzero(np.cumsum(weights) - weights < sampling.top_p * weights.sum())))
    if sampling.min_p:
        kept = int(np.count_nonzero(values[:kept] - values[0] >= np.log(sampling.min_p)))
    cumulated = np.cumsum(np.exp((values[:kept] - values.max()) / sampling.temperature))
    uniform = sequence(sampling).random.random()
    return int(order[min(int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right")), kept - 1)])
