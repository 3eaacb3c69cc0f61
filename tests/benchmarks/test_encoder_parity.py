from __future__ import annotations

import pytest

from benchmarks.encoder_parity import distance, parity


def test_the_distance_of_vectors_is_that_of_their_directions() -> None:
    reference = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]]]

    assert distance([[[2.0, 0.0], [0.0, 3.0]], [[0.5, 0.5]]], reference) == pytest.approx(0)
    assert distance([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]]], reference) == pytest.approx(1 - 0.5**0.5)


def test_the_distance_of_scores_is_their_difference() -> None:
    assert distance([[[0.9], [0.1]]], [[[0.9], [0.4]]]) == pytest.approx(0.3)


def test_each_role_is_held_against_plain_sentence_transformers() -> None:
    servers = {
        "plain": {"runtime": {"answers": [[[0.5]]]}},
        "hearth": {"runtime": {"answers": [[[0.75]]]}},
        "infinity": {"runtime": {}},  # it did not start
    }

    assert parity(servers) == {"plain": {"max_distance": 0.0}, "hearth": {"max_distance": 0.25}}
