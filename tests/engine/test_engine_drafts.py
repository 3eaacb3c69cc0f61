"""Tokens guessed ahead save steps, and change nothing of what is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.types import Delta, Finished, SamplingParams
from tests.fakes.backend import FakeBackend, generate_alone
from tests.fakes.engine import EngineUnderTest, endings_of, expected_text, text_of


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 49), min_size=1, max_size=12),
    st.integers(2, 20),
    st.lists(st.integers(1, 49), max_size=20),
    st.integers(0, 20),
)
def test_a_prediction_changes_no_answer(prompt: list[int], max_tokens: int, wrong: list[int], num_right: int) -> None:
    """Right up to somewhere, wrong then, or the other way round."""
    answer = generate_alone(prompt, max_tokens=max_tokens, vocab_size=50)
    for prediction in ([*answer[:num_right], *wrong], [*wrong, *answer[num_right:]]):
        engine = EngineUnderTest(FakeBackend())
        make_drafting_cheap(engine)
        engine.add("a", prompt, max_tokens=max_tokens, prediction=prediction)

        outputs = engine.run_until_idle()

        assert text_of(outputs, "a") == expected_text(prompt, max_tokens=max_tokens)


def test_a_right_prediction_saves_steps_and_is_accounted_for() -> None:
    """Of a model that repeats nothing, so that nothing else could be drafted."""
    prompt = next(
        [n, 7]
        for n in range(1, 50)
        if len(set(answer := generate_alone([n, 7], max_tokens=20, vocab_size=50))) > 14 and len(answer) == 20
    )
    answer = generate_alone(prompt, max_tokens=20, vocab_size=50)

    usages, num_steps = [], []
    for prediction in ([], answer):
        engine = EngineUnderTest(FakeBackend())
        make_drafting_cheap(engine)
        engine.add("a", prompt, max_tokens=20, prediction=prediction)
        [ending] = endings_of(engine.run_until_idle(), "a")
        assert isinstance(ending, Finished)
        usages.append(ending.usage)
        num_steps.append(engine.engine.num_steps)

    assert (usages[0].accepted_prediction_tokens, usages[0].rejected_prediction_tokens) == (0, 0)
    assert usages[1].accepted_prediction_tokens > 8
    assert num_steps[1] < num_steps[0] - 5


def test_log_probabilities_are_told_of_each_token_drafted_or_not() -> None:
    sampling = SamplingParams(temperature=0, num_logprobs=2)
    prompt = [5, 6, 7, 5, 6, 7, 5, 6]
    engine = EngineUnderTest(FakeBackend())
    make_drafting_cheap(engine)

    engine.add("a", prompt, max_tokens=12, sampling=sampling)
    outputs = engine.run_until_idle()

    told = [each for _, event in outputs if isinstance(event, Delta) for each in event.logprobs]
    pieces = [b"<%d>" % token_id for token_id in generate_alone(prompt, max_tokens=12, vocab_size=50) if token_id]
    assert [each.chosen.piece for each in told] == pieces
    assert all(each.top[0] == each.chosen and len(each.top) == 2 for each in told)
    assert told[0].chosen.logprob == pytest.approx(10 - np.log(np.exp(10) + 49), abs=1e-4)


def test_right_drafts_save_steps_and_wrong_ones_change_nothing() -> None:
    prompt = [5, 6, 7, 8, 5, 6]
    steps = {}
    for drafts in (False, True):
        backend = FakeBackend(num_cells=400)
        engine = EngineUnderTest(backend, drafts=drafts)
        engine.add("a", prompt, max_tokens=200, sampling=SamplingParams(temperature=0, ignore_eos=True))
        outputs = engine.run_until_idle()
        steps[drafts] = len(backend.batch_sizes), text_of(outputs, "a")

    assert steps[True][1] == steps[False][1]
    assert steps[True][0] < 0.7 * steps[False][0]


def test_a_drafted_sampled_text_is_the_same_as_without_drafts() -> None:
    sampling = SamplingParams(temperature=5.0, seed=7, ignore_eos=True)  # hot enough to leave the fake's one-hot logits
    texts = []
    for drafts in (False, True):
        engine = EngineUnderTest(FakeBackend(num_cells=400), drafts=drafts)
        engine.add("a", [5, 6, 7, 5, 6], max_tokens=100, sampling=sampling)
        texts.append(text_of(engine.run_until_idle(), "a"))

    assert texts[0] == texts[1]


def make_drafting_cheap(engine: EngineUnderTest) -> None:
    """As if many steps had been timed, in which more tokens took hardly longer."""
    for num_tokens in (1, 2, 3) * 20:
        seconds = 1 + 0.001 * num_tokens
        engine.engine._cost.observe(num_prompt_tokens=0, num_decode_tokens=num_tokens, seconds=seconds)
