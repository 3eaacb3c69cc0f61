"""Log probabilities against a full log-softmax, and which rows have any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.logprobs import LEAST_LOGPROB, rank
from server.engine.sampler import NO_TOKEN, Sampler
from server.engine.sampler_state import SamplerState
from server.engine.token_mask import TokenMask
from server.types import SamplingParams

VOCAB_SIZE = 700


def log_softmax(row: Any) -> Any:
    """The definition, in double precision."""
    exact = row.astype(np.float64)
    return exact - exact.max() - np.log(np.sum(np.exp(exact - exact.max())))


def random_row(seed: int, vocab_size: int = VOCAB_SIZE) -> Any:
    """Peaked or flat; sometimes with ties; around zero or far from it."""
    random = np.random.default_rng(seed)
    row = random.standard_normal(vocab_size) * random.choice([0.1, 3.0, 30.0]) + random.choice([0, 1000, -1000])
    return (np.round(row) if random.random() < 0.3 else row).astype(np.float32)


@given(
    seed=st.integers(0, 2**32),
    vocab_size=st.sampled_from([1, 12, 512, 513, 5000, 49152]),
    num_top=st.integers(0, 20),
    place=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=100, deadline=None)
def test_a_ranking_is_that_of_a_full_sort(seed: int, vocab_size: int, num_top: int, place: float) -> None:
    row = random_row(seed, vocab_size)
    token_id = int(place * vocab_size)
    expected = log_softmax(row)

    ranking = rank(row.copy(), token_id, num_top=num_top)

    assert ranking.logprob == pytest.approx(expected[token_id], abs=1e-4)
    assert [each for each, _ in ranking.top] == np.argsort(-row, kind="stable")[:num_top].tolist()
    assert [logprob for _, logprob in ranking.top] == pytest.approx(expected[[i for i, _ in ranking.top]], abs=1e-4)


def test_what_cannot_come_has_a_number_too() -> None:
    """JSON has no infinity."""
    row = np.full(12, -np.inf, np.float32)
    row[3] = 1

    assert rank(row, 3, num_top=2) == (0.0, ((3, 0.0), (0, LEAST_LOGPROB)))
    assert rank(row, 5, num_top=0) == (LEAST_LOGPROB, ())


def test_a_greedy_choice_is_the_likeliest() -> None:
    rows = np.stack([random_row(seed) for seed in range(20)])
    state = SamplerState(SamplingParams(temperature=0, num_logprobs=3), [])

    token_ids = sampler().sample(rows.copy(), [state] * 20, list(range(20)))

    assert [state.rankings[i].top[0] for i in range(20)] == [
        (token_id, state.rankings[i].logprob) for i, token_id in enumerate(token_ids)
    ]


params_of_any_kind = st.builds(
    SamplingParams,
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0, 0.3, 1, 1.9]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.5]),
    repeat_penalty=st.sampled_from([1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    logit_bias=st.dictionaries(st.integers(0, 9), st.sampled_from([-100.0, 50.0]), max_size=3),
    ignore_eos=st.booleans(),
    num_logprobs=st.sampled_from([None, 0, 5]),
)


@given(seed=st.integers(0, 2**32), params=st.lists(params_of_any_kind, min_size=1, max_size=6), is_masked=st.booleans())
@settings(max_examples=100, deadline=None)
def test_rows_that_ask_learn_what_the_model_said_and_the_choice_stays(
    seed: int, params: list[SamplingParams], is_masked: bool
) -> None:
    """Whatever bias, penalties, grammar and truncation make of it; and rows that do not ask get nothing."""
    rows = np.stack([random_row(seed + i) for i in range(len(params))])
    mask = cast(TokenMask, SimpleNamespace(offsets=mask_of(range(100)))) if is_masked else None
    states = [SamplerState(each, [1, 2]) for each in params]
    for state in states:
        state.accept(7)
        state.mask, state.changes_logits = mask, state.changes_logits or is_masked

    token_ids = sampler().sample(rows.copy(), states)

    for row, state, token_id in zip(rows, states, token_ids, strict=True):
        if state.params.num_logprobs is None:
            assert state.rankings == {}
        else:
            expected = log_softmax(row)
            [(index, ranking)] = state.rankings.items()
            assert index == 1  # the second token of its answer
            assert ranking.logprob == pytest.approx(max(expected[token_id], LEAST_LOGPROB), abs=1e-3)
            assert len(ranking.top) == state.params.num_logprobs
            assert [logprob for _, logprob in ranking.top] == pytest.approx(sorted(expected)[::-1][: len(ranking.top)])
    silent = [SamplerState(without_logprobs(state.params), [1, 2], mask) for state in states]
    for state in silent:
        state.seen.count(7) if state.seen else None
        state.num_generated = 1
    assert sampler().sample(rows.copy(), silent) == token_ids


def test_a_row_of_nonsense_has_no_ranking() -> None:
    state = SamplerState(SamplingParams(num_logprobs=5), [])

    assert sampler().sample(np.full((1, VOCAB_SIZE), np.nan, np.float32), [state]) == [NO_TOKEN]
    assert state.rankings == {}


def sampler() -> Sampler:
    return Sampler(np.arange(VOCAB_SIZE) == 0)


def mask_of(allowed: range) -> Any:
    offsets = np.full(VOCAB_SIZE, -np.inf, np.float32)
    offsets[allowed] = 0
    return offsets


def without_logprobs(params: SamplingParams) -> SamplingParams:
    return msgspec.structs.replace(params, num_logprobs=None)
