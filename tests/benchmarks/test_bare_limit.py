from __future__ import annotations

from benchmarks.bare_limit import batches, rounds


def test_prompts_share_a_batch_as_long_as_they_fit() -> None:
    prompts = [[0] * length for length in (5, 4, 1, 9, 10)]

    assert list(batches(prompts, 10)) == [[0, 1, 2], [3], [4]]


def test_rounds_take_the_prompts_in_order() -> None:
    assert list(rounds([[1], [2], [3]], 2)) == [[[1], [2]], [[3]]]
