from __future__ import annotations

import random

import pytest

from server.engine.step_cost import StepCost


def decode(cost: StepCost, num_tokens: int, seconds: float) -> None:
    cost.observe(num_prompt_tokens=0, num_decode_tokens=num_tokens, seconds=seconds)


def prefill(cost: StepCost, num_tokens: int, seconds: float, *, num_decodes: int = 0) -> None:
    cost.observe(num_prompt_tokens=num_tokens, num_decode_tokens=num_decodes, seconds=seconds)


@pytest.mark.parametrize("widest", [9, 64])
def test_decoding_gives_a_price_for_a_step_and_for_each_token(widest: int) -> None:
    cost, noise = StepCost(), random.Random(1)
    for _ in range(300):
        num_tokens = noise.randint(1, widest)
        decode(cost, num_tokens, 0.010 + 0.004 * num_tokens + noise.uniform(-0.001, 0.001))

    assert cost.decode_s_per_token == pytest.approx(0.004, rel=0.2)
    assert cost.of_decode_step(widest) == pytest.approx(0.010 + 0.004 * widest, rel=0.2)
    assert cost.prefill_s_per_token == 0


def test_what_is_not_confirmed_fades_slowly() -> None:
    """A price that nothing speaks against must not hold for ever: it may come from one slow step."""
    cost = StepCost()
    for num_tokens in (1, 4) * 50:
        decode(cost, num_tokens, 0.010 + 0.004 * num_tokens)
    for _ in range(30):
        decode(cost, 1, 0.014)
    assert cost.decode_s_per_token == pytest.approx(0.004, rel=0.3)

    for _ in range(1000):
        decode(cost, 1, 0.014)
    assert cost.decode_s_per_token < 0.001
    assert cost.of_decode_step(1) == pytest.approx(0.014, rel=0.05)


def test_one_very_slow_step_is_not_believed() -> None:
    cost = StepCost()
    for num_tokens in (1, 4) * 50:
        decode(cost, num_tokens, 0.010 + 0.004 * num_tokens)
    decode(cost, 4, 5.0)

    assert cost.of_decode_step(1) < 0.03
    assert cost.decode_s_per_token < 0.02


def test_a_slower_machine_is_noticed() -> None:
    cost = StepCost()
    prefill(cost, 512, 0.5)
    for _ in range(10):
        prefill(cost, 512, 1.5)

    assert cost.prefill_s_per_token == pytest.approx(1.5 / 512, rel=0.2)


def test_the_decodes_of_a_mixed_step_are_not_paid_by_its_prompt() -> None:
    cost = StepCost()
    for num_tokens in (60, 64) * 50:
        decode(cost, num_tokens, 0.003 * num_tokens)
    for _ in range(50):
        prefill(cost, 200, 0.001 * 200 + 0.003 * 64, num_decodes=64)

    assert cost.prefill_s_per_token == pytest.approx(0.001, rel=0.2)
