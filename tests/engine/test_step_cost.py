from __future__ import annotations

import random

import pytest

from server.engine.step_cost import StepCost


def test_small_steps_give_a_price_for_a_step_and_for_each_token() -> None:
    cost, noise = StepCost(), random.Random(1)
    for _ in range(300):
        num_tokens = noise.randint(1, 9)
        cost.observe(num_tokens, 0.010 + 0.004 * num_tokens + noise.uniform(-0.001, 0.001))

    assert cost.small_step_s_per_token == pytest.approx(0.004, rel=0.2)
    assert cost.of_small_step(1) == pytest.approx(0.014, rel=0.2)


def test_the_price_of_a_token_is_remembered_while_all_steps_are_alike() -> None:
    cost = StepCost()
    for num_tokens in (1, 4) * 50:
        cost.observe(num_tokens, 0.010 + 0.004 * num_tokens)
    for _ in range(500):
        cost.observe(1, 0.014)

    assert cost.small_step_s_per_token == pytest.approx(0.004, rel=0.2)
    assert cost.of_small_step(1) == pytest.approx(0.014, rel=0.05)


def test_a_slower_machine_is_noticed() -> None:
    cost = StepCost()
    cost.observe(512, 0.5)
    for _ in range(10):
        cost.observe(512, 1.5)

    assert cost.prefill_s_per_token == pytest.approx(1.5 / 512, rel=0.2)
