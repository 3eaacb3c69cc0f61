"""llama.cpp's own chain of samplers and ours, over the same logits: the same tokens are left, with the same shares.

Needs the library only, no weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy as np
import pytest

from server.engine.sampler import Sampler
from server.engine.sampler_state import SamplerState
from server.types import SamplingParams, TokenIds

pytestmark = pytest.mark.integration

VOCAB_SIZE = 1500  # above 1,024 llama.cpp's top_p looks at part of the tokens first, as ours does
ROUNDING = 1e-5  # of float32 sums over the vocabulary

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class StateAt(SamplerState):
    """A state whose uniform number is given, so that a test can look at any point of the distribution."""

    def __init__(self, params: SamplingParams, prompt: TokenIds, generated: TokenIds, uniform: float) -> None:
        super().__init__(params, prompt)
        for token_id in generated:
            self.accept(token_id)
        self._uniform = uniform

    def uniform(self, ahead: int = 0) -> float:
        return self._uniform


@contextmanager
def llama_chain(params: SamplingParams) -> Iterator[Any]:
    """The samplers of common/sampling.cpp that we have too, in its default order."""
    biases = (llama_cpp.llama_logit_bias * len(params.logit_bias))(*params.logit_bias.items())
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in (
        llama_cpp.llama_sampler_init_logit_bias(VOCAB_SIZE, len(biases), biases),
        llama_cpp.llama_sampler_init_penalties(
            VOCAB_SIZE, 1000, params.repeat_penalty, params.frequency_penalty, params.presence_penalty
        ),
        llama_cpp.llama_sampler_init_top_k(params.top_k),
        llama_cpp.llama_sampler_init_top_p(params.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(params.min_p, 1),
        llama_cpp.llama_sampler_init_temp(params.temperature),
    ):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    yield chain
    llama_cpp.llama_sampler_free(chain)


def llama_shares(logits: Any, params: SamplingParams, accepted: TokenIds) -> tuple[Any, Any]:
    """The tokens that llama.cpp leaves, by id, and their probabilities."""
    tokens = np.zeros(VOCAB_SIZE, TOKEN_DATA)
    tokens["id"], tokens["logit"] = np.arange(VOCAB_SIZE), logits
    data = tokens.ctypes.data_as(llama_cpp.llama_token_data_p)
    candidates = llama_cpp.llama_token_data_array(data=data, size=VOCAB_SIZE, selected=-1, sorted=False)
    with llama_chain(params) as chain:
        for token_id in accepted:
            llama_cpp.llama_sampler_accept(chain, token_id)
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates))
    left = np.sort(tokens[: candidates.size], order="id")
    weights = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return left["id"], weights / weights.sum()


def assert_same_shares(params: SamplingParams, *, prompt: TokenIds, generated: TokenIds, seed: int) -> None:
    """Each token's share of [0, 1) begins and ends where llama.cpp's does: one more or less would move the others'."""
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(VOCAB_SIZE) * random.choice([0.5, 2.0, 5.0])).astype(np.float32)
    token_ids, probabilities = llama_shares(logits, params, prompt + generated)
    ends = np.cumsum(probabilities)
    is_visible = probabilities > 3 * ROUNDING
    inside = np.concatenate([(ends - probabilities)[is_visible] + ROUNDING, ends[is_visible] - ROUNDING])

    states = [StateAt(params, prompt, generated, uniform) for uniform in inside.tolist()]
    sampled = Sampler(np.zeros(VOCAB_SIZE, np.bool_)).sample(np.tile(logits, (len(states), 1)), states)

    assert sampled == [*token_ids[is_visible], *token_ids[is_visible]]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.6),
        SamplingParams(top_k=40),
        SamplingParams(top_k=1000, temperature=1.4),
        SamplingParams(top_p=0.9),
        SamplingParams(top_p=0.3, temperature=2.0),
        SamplingParams(min_p=0.05, temperature=0.8),
        SamplingParams(top_p=0.95, min_p=0.02),
        SamplingParams(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
        SamplingParams(top_k=10, logit_bias={3: 5.0, 7: -100.0, 1400: 2.5}),
    ],
)
def test_truncation_and_temperature_are_llama_cpps(params: SamplingParams, seed: int) -> None:
    assert_same_shares(params, prompt=[1, 2], generated=[3, 4, 4], seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_repeat_penalty_is_llama_cpps_over_prompt_and_answer(seed: int) -> None:
    params = SamplingParams(repeat_penalty=1.3, top_k=200, logit_bias={5: 4.0, 6: -3.0})

    assert_same_shares(params, prompt=list(range(0, 900, 3)), generated=[5, 6, 6, *range(0, 900, 7)], seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_all_penalties_together_are_llama_cpps(seed: int) -> None:
    """Over the answer alone, because llama.cpp does not tell it from the prompt, and presence and frequency do."""
    params = SamplingParams(repeat_penalty=1.2, presence_penalty=0.7, frequency_penalty=0.3, top_p=0.9, temperature=0.9)

    assert_same_shares(params, prompt=[], generated=[*range(0, 900, 2), *range(0, 900, 5)], seed=seed)
