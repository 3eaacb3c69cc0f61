"""Exact choices against naive twins, and distributions against the probabilities they promise."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.sampler import NO_TOKEN, Sampler
from server.engine.sampler_state import SamplerState
from server.engine.token_mask import TokenMask
from server.types import SamplingParams

LOGITS = [0.0, 2.0, 1.5, -1.0, 3.0, 0.5, 2.5, -2.0, 1.0, 0.2, -0.3, 0.9]
PROMPT, GENERATED = [1, 3, 3], [4, 6, 6]


def sampler(vocab_size: int) -> Sampler:
    """Token 0 ends a generation."""
    return Sampler(np.arange(vocab_size) == 0)


def state(params: SamplingParams, *, prompt: list[int] = PROMPT, generated: list[int] = GENERATED) -> SamplerState:
    made = SamplerState(params, prompt)
    for token_id in generated:
        made.accept(token_id)
    return made


def sample(logits: list[float], params: SamplingParams, *, count: int = 1, generated: list[int] | None = None) -> Any:
    """The next `count` tokens, were the logits the same for all of them."""
    rows = np.tile(np.array(logits, np.float32), (count, 1))
    owner = state(params, generated=generated or [])
    return sampler(len(logits)).sample(rows, [owner] * count, list(range(count)))


def shares(logits: list[float], params: SamplingParams, *, count: int = 4000) -> Any:
    return np.bincount(sample(logits, params, count=count), minlength=len(logits)) / count


# ---- the definition, in plain Python


def naive_logits(logits: list[float], params: SamplingParams, prompt: list[int], generated: list[int]) -> list[float]:
    """Bias, then penalties; in float32, as llama.cpp has them."""
    changed = [np.float32(logit) for logit in logits]
    for token_id, bias in params.logit_bias.items():
        changed[token_id] += np.float32(bias)
    if params.ignore_eos:
        changed[0] = np.float32(-np.inf)
    for i, logit in enumerate(changed):
        if i in prompt or i in generated:
            penalty = np.float32(params.repeat_penalty)
            changed[i] = logit / penalty if logit > 0 else logit * penalty
        if i in generated:
            changed[i] -= np.float32(params.presence_penalty + params.frequency_penalty * generated.count(i))
    return [float(logit) for logit in changed]


def naive_probabilities(logits: list[float], params: SamplingParams) -> list[float]:
    """What top_k, top_p, min_p and temperature make of logits."""
    order = sorted((i for i, x in enumerate(logits) if x > -math.inf), key=lambda i: (-logits[i], i))
    best = logits[order[0]]
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        total, reached, kept = sum(math.exp(logits[i] - best) for i in order), 0.0, []
        for i in order:
            if kept and reached >= params.top_p * total:
                break
            kept.append(i)
            reached += math.exp(logits[i] - best)
        order = kept
    if params.min_p:
        order = [i for i in order if logits[i] - best >= math.log(params.min_p)]
    weights = {i: math.exp((logits[i] - best) / params.temperature) for i in order}
    total = sum(weights.values())
    return [weights.get(i, 0.0) / total for i in range(len(logits))]


def naive_choice(logits: list[float], params: SamplingParams, uniform: float) -> int:
    if params.temperature == 0:
        return max(range(len(logits)), key=lambda i: (logits[i], -i))
    probabilities = naive_probabilities(logits, params)
    reached = 0.0
    for i, probability in enumerate(probabilities):
        reached += probability
        if uniform < reached:
            return i
    return max(i for i, probability in enumerate(probabilities) if probability)


def nearby_choices(logits: list[float], params: SamplingParams, uniform: float) -> set[int]:
    """All that is right if weights may be wrong by a millionth, as sums of float32 are."""
    near = (0, -1e-6, 1e-6)
    shifted = [
        SamplingParams(**{**as_dict(params), "top_p": params.top_p + (d if params.top_p < 1 else 0)}) for d in near
    ]
    return {naive_choice(logits, each, uniform + d) for each in shifted for d in near}


def as_dict(params: SamplingParams) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.__struct_fields__}


# ---- exact choices

params_of_any_kind = st.builds(
    SamplingParams,
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0, 1, 1, 0.3, 0.7, 1.6]),
    top_k=st.sampled_from([0, 0, 1, 3, 40, 600, 5000]),
    top_p=st.one_of(st.just(1.0), st.floats(0, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1)),
    repeat_penalty=st.sampled_from([1, 1, 1.25, 0.5]),
    presence_penalty=st.sampled_from([0, 0, 0.5, -0.5]),
    frequency_penalty=st.sampled_from([0, 0, 0.25]),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-100, 100, width=32), max_size=3),
    ignore_eos=st.booleans(),
)


def random_row(random: np.random.Generator, vocab_size: int) -> Any:
    """Peaked or flat; sometimes with many ties, sometimes with nearly everything masked."""
    row = random.standard_normal(vocab_size) * random.choice([0.1, 1.0, 3.0, 8.0])
    if random.random() < 0.4:
        row = np.round(row * 2) / 2
    if random.random() < 0.3:
        row[random.permutation(vocab_size)[random.integers(1, vocab_size) :]] = -np.inf
        row[11] = 1.0
    return row.astype(np.float32)


@given(
    seed=st.integers(0, 2**32),
    vocab_size=st.sampled_from([12, 40, 700, 1100]),
    params=st.lists(params_of_any_kind, min_size=1, max_size=5),
    ahead=st.integers(0, 70),
)
@settings(max_examples=150, deadline=None)
def test_every_choice_is_that_of_the_definition(
    seed: int, vocab_size: int, params: list[SamplingParams], ahead: int
) -> None:
    """Rows of all kinds in one batch, each with parameters of its own, some of them drafted."""
    random = np.random.default_rng(seed)
    rows = np.stack([random_row(random, vocab_size) for _ in params])
    states = [state(each) for each in params]
    aheads = [0 if each.has_memory else ahead for each in states]

    token_ids = sampler(vocab_size).sample(rows.copy(), states, aheads)

    for row, each, places, token_id in zip(rows, states, aheads, token_ids, strict=True):
        logits = naive_logits(row.tolist(), each.params, PROMPT, GENERATED)
        uniform = each.uniform(places)
        expected = naive_choice(logits, each.params, uniform)
        assert token_id == expected or token_id in nearby_choices(logits, each.params, uniform)


def quick_twin(row: Any, params: SamplingParams, uniform: float) -> int:
    """The definition once more, by numpy, for large vocabularies."""
    order = np.argsort(-row, kind="stable")[: params.top_k or None]
    relative = row[order].astype(np.float64) - float(row.max())
    weights = np.exp(relative)
    is_kept = (np.cumsum(weights) - weights < params.top_p * weights.sum()) | (params.top_p == 1)
    is_kept &= weights >= params.min_p
    is_kept[0] = True
    token_ids = np.sort(order[is_kept])
    cumulated = np.cumsum(np.exp((row[token_ids].astype(np.float64) - float(row.max())) / params.temperature))
    return int(token_ids[np.searchsorted(cumulated, uniform * cumulated[-1], side="right")])


@pytest.mark.parametrize("vocab_size", [1024, 5000, 49152, 50257])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 2000},
        {"top_k": 10**9},
        {"top_p": 0.0},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"min_p": 0.05},
        {"min_p": 0.0001, "top_p": 0.99},
        {"top_k": 100, "top_p": 0.95, "min_p": 0.01},
    ],
)
def test_however_few_candidates_are_looked_at_the_choice_is_that_of_a_full_sort(
    vocab_size: int, options: dict[str, Any]
) -> None:
    random = np.random.default_rng(vocab_size)
    rows = np.stack([random_row(random, vocab_size) for _ in range(8)])
    states = [state(SamplingParams(seed=seed, temperature=0.7, **options)) for seed in range(8)]

    token_ids = sampler(vocab_size).sample(rows.copy(), states)

    assert token_ids == [quick_twin(row, each.params, each.uniform()) for row, each in zip(rows, states, strict=True)]


def test_of_equal_logits_the_first_ones_are_kept() -> None:
    flat = [1.0] * 12

    assert set(sample(flat, SamplingParams(seed=1, top_k=3), count=100)) == {0, 1, 2}
    assert set(sample(flat, SamplingParams(seed=1, top_p=0.25), count=100)) == {0, 1, 2}
    assert set(sample(flat, SamplingParams(temperature=0), count=3)) == {0}


def test_the_token_that_crosses_top_p_is_kept() -> None:
    assert set(sample([1.0] * 4, SamplingParams(seed=1, top_p=0.51), count=100)) == {0, 1, 2}


@pytest.mark.parametrize("temperature", [0, 1e-3, 1e-300, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    """Also where logits / temperature is beyond what a float holds, and in rows that nothing cuts."""
    for options in ({}, {"top_k": 5}, {"top_p": 0.9}):
        assert set(sample(LOGITS, SamplingParams(temperature=temperature, seed=1, **options), count=20)) == {4}


@pytest.mark.parametrize("options", [{}, {"top_k": 2500}, {"min_p": 0.001}])
def test_the_ends_of_the_unit_interval_give_the_first_and_the_last_token_left(options: dict[str, Any]) -> None:
    class StateAt(SamplerState):
        def uniform(self, ahead: int = 0) -> float:
            return float(np.nextafter(ahead, 0))  # 0, and the last number below 1

    row = np.linspace(0, 3, 3000, dtype=np.float32)
    row[[0, 1, 2999]] = -np.inf
    owner = StateAt(SamplingParams(**options), [])

    first, last = sampler(3000).sample(np.stack([row, row]), [owner, owner], [0, 1])

    assert first == (2999 - 2500 if "top_k" in options else 2)
    assert last == 2998


def test_a_mask_of_the_least_float_is_a_mask() -> None:
    row = [1.0, 2.0, -3.4e38, 1.5]

    assert set(sample(row, SamplingParams(seed=1, temperature=0.5), count=100)) == {0, 1, 3}
    assert set(sample(row, SamplingParams(seed=1, top_p=0.9999), count=100)) == {0, 1, 3}


# ---- distributions


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(seed=2, temperature=0.5),
        SamplingParams(seed=3, temperature=1.7, top_k=5),
        SamplingParams(seed=4, top_p=0.7),
        SamplingParams(seed=5, min_p=0.2),
        SamplingParams(seed=6, temperature=0.8, top_k=8, top_p=0.9, min_p=0.05),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    """Pearson's chi-square of 20,000 draws; 38 is what 11 degrees of freedom exceed once in 10,000 times."""
    expected = np.array(naive_probabilities(LOGITS, params))

    found = shares(LOGITS, params, count=20_000)

    possible = expected > 0
    assert not np.any(found[~possible])
    assert 20_000 * np.sum((found - expected)[possible] ** 2 / expected[possible]) < 38


def test_draws_from_a_large_vocabulary_follow_the_distribution() -> None:
    """Total variation between 5,000 draws and a peaked distribution over several stretches of tokens."""
    logits = [0.0] * 3000
    logits[5] = logits[1500] = logits[2999] = 9.0

    found = shares(logits, SamplingParams(seed=1), count=5000)

    peak = math.exp(9.0) / (3 * math.exp(9.0) + 2997)
    np.testing.assert_allclose(found[[5, 1500, 2999]], peak, atol=0.02)
    assert found.sum() - found[[5, 1500, 2999]].sum() == pytest.approx(1 - 3 * peak, abs=0.02)


# ---- what changes logits


def changed(logits: list[float], params: SamplingParams) -> list[float]:
    """The row as the sampler leaves it."""
    row = np.array([logits], np.float32)
    sampler(len(logits)).sample(row, [state(params)])
    return row[0].tolist()  # type: ignore[no-any-return]


def test_presence_and_frequency_lower_what_has_been_generated() -> None:
    """OpenAI's formula: presence once, frequency per occurrence; not what the prompt says."""
    row = changed([0.0] * 8, SamplingParams(temperature=0, presence_penalty=0.5, frequency_penalty=0.25))

    assert row == [0, 0, 0, 0, -0.75, 0, -1, 0]


def test_repeat_penalty_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    """Over prompt and answer, each token once."""
    row = changed([2.0, 2.0, 2.0, -2.0, 2.0, -2.0, -2.0], SamplingParams(temperature=0, repeat_penalty=2.0))

    assert row == [2, 1, 2, -4, 1, -2, -4]


def test_bias_is_added_before_penalties() -> None:
    """As in llama.cpp's default chain."""
    row = changed(
        [1.0] * 7, SamplingParams(temperature=0, repeat_penalty=2.0, presence_penalty=1, logit_bias={4: 3.0, 3: -2.0})
    )

    assert row[3:5] == [-2.0, 1.0]


def test_bias_decides() -> None:
    assert sample(LOGITS, SamplingParams(temperature=0, logit_bias={4: -100.0, 9: 100.0})) == [9]


def test_ignore_eos_never_ends() -> None:
    assert 0 not in sample([50.0] + [0.0] * 11, SamplingParams(seed=1, ignore_eos=True), count=200)


# ---- company


KINDS: list[Callable[[int], SamplingParams]] = [
    lambda seed: SamplingParams(seed=seed),
    lambda seed: SamplingParams(seed=seed, top_k=40, top_p=0.95, temperature=0.8),
    lambda seed: SamplingParams(seed=seed, top_p=0.9),
    lambda seed: SamplingParams(seed=seed, min_p=0.05, temperature=1.3),
    lambda seed: SamplingParams(seed=seed, temperature=0),
    lambda seed: SamplingParams(seed=seed, top_k=20, repeat_penalty=1.1, frequency_penalty=0.3),
]


@pytest.mark.parametrize("vocab_size", [1000, 49152])
def test_company_changes_no_choice(vocab_size: int) -> None:
    """The same rows alone, together, and shuffled with others."""
    random = np.random.default_rng(5)
    rows = np.stack([random_row(random, vocab_size) for _ in range(24)])
    states = [state(KINDS[i % len(KINDS)](i)) for i in range(24)]
    tested = sampler(vocab_size)

    alone = [tested.sample(rows[i : i + 1].copy(), [each])[0] for i, each in enumerate(states)]

    order = random.permutation(24).tolist()
    assert tested.sample(rows.copy(), states) == alone
    assert tested.sample(rows[order], [states[i] for i in order]) == [alone[i] for i in order]


@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_drafted_row_is_chosen_as_if_its_turn_had_come(kind: Callable[[int], SamplingParams]) -> None:
    random = np.random.default_rng(6)
    rows = np.stack([random_row(random, 3000) for _ in range(100)])
    tested = sampler(3000)

    drafted = tested.sample(rows.copy(), [state(kind(7))] * 100, list(range(100)))

    in_turn, owner = [], state(kind(7))
    for row in rows:
        in_turn += tested.sample(row[None].copy(), [owner])
        owner.accept(in_turn[-1])
    assert in_turn == drafted


def test_what_penalties_hit_is_never_drafted() -> None:
    with pytest.raises(AssertionError):
        sampler(12).sample(np.zeros((1, 12), np.float32), [state(SamplingParams(presence_penalty=1))], [1])


def test_the_seed_decides() -> None:
    def draws(seed: int) -> list[int]:
        return sample(LOGITS, SamplingParams(seed=seed), count=20)  # type: ignore[no-any-return]

    assert draws(7) == draws(7)
    assert draws(7) != draws(8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_nonsense_gives_no_token_and_disturbs_no_other(kind: Callable[[int], SamplingParams]) -> None:
    rows = np.stack([random_row(np.random.default_rng(1), 3000)] * 5)
    states = [state(kind(seed)) for seed in range(5)]
    sound = sampler(3000).sample(rows.copy(), states)
    rows[1, 700] = np.nan
    rows[2] = -np.inf
    rows[3, 10] = np.inf

    token_ids = sampler(3000).sample(rows, states)

    assert token_ids == [sound[0], NO_TOKEN, NO_TOKEN, NO_TOKEN, sound[4]]


def test_a_masked_row_makes_no_other_row_expensive() -> None:
    """Its few tokens lie in fewer columns than top_k asks for: once, that made all rows as wide as the vocabulary."""
    rows = np.stack([random_row(np.random.default_rng(2), 49152)] * 64)
    rows[9, 30:] = -np.inf
    states = [state(KINDS[1](seed)) for seed in range(64)]
    tested = sampler(49152)

    tracemalloc.start()
    tested.sample(rows, states)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 1_000_000


def test_no_rows_no_tokens() -> None:
    assert sampler(12).sample(np.empty((0, 12), np.float32), []) == []


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), num_allowed=st.integers(1, 12))
def test_a_mask_leaves_what_the_logits_of_the_allowed_tokens_give(seed: int, num_allowed: int) -> None:
    """As if the vocabulary had no other tokens, whatever stands out among those that are ruled out."""
    random = np.random.default_rng(seed)
    allowed = np.sort(random.permutation(len(LOGITS))[:num_allowed])
    offsets = np.full(len(LOGITS), -np.inf, np.float32)
    offsets[allowed] = 0
    params = SamplingParams(temperature=0.7, top_p=0.9, min_p=0.05, seed=seed)
    masked = SamplerState(params, [], mask=cast(TokenMask, SimpleNamespace(offsets=offsets)))
    few = SamplerState(params, [])
    logits = random.normal(0, 3, len(LOGITS)).astype(np.float32)

    [picked] = sampler(len(LOGITS)).sample(logits[None].copy(), [masked])
    [place] = sampler(num_allowed).sample(logits[None, allowed].copy(), [few])

    assert picked == allowed[place]


def test_where_a_mask_allows_nothing_nothing_is_picked() -> None:
    nothing = SimpleNamespace(offsets=np.full(len(LOGITS), -np.inf, np.float32))

    for params in (SamplingParams(temperature=0), SamplingParams(top_k=3), SamplingParams()):
        owner = SamplerState(params, [], mask=cast(TokenMask, nothing))
        assert sampler(len(LOGITS)).sample(np.array([LOGITS], np.float32), [owner]) == [NO_TOKEN]
