from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rag.fusion import K, Ranking, fuse

ids = st.lists(st.integers(0, 30), max_size=20, unique=True)
rankings = st.lists(st.builds(Ranking, ids, st.just(0) | st.floats(0.01, 10)), max_size=4)


def naive_score(id_: int, several: list[Ranking]) -> float:
    places = [(ranking.weight, list(ranking.ids).index(id_) + 1) for ranking in several if id_ in ranking.ids]
    return sum(weight / (K + rank) for weight, rank in places)


@given(rankings)
def test_scores_are_those_of_the_formula_as_a_share_of_the_best_possible(several: list[Ranking]) -> None:
    best = sum(ranking.weight for ranking in several) / (K + 1)

    for id_, score in fuse(several, 100):
        assert abs(score - naive_score(id_, several) / best) < 1e-9


@given(rankings, st.integers(1, 10))
def test_the_best_come_first_with_scores_from_0_to_1(several: list[Ranking], limit: int) -> None:
    fused = fuse(several, limit)

    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert fused == fuse(several, 100)[:limit]


def test_first_everywhere_is_1() -> None:
    assert fuse([Ranking([7, 8]), Ranking([7, 9], 0.3)], 1) == [(7, pytest.approx(1.0))]


def test_two_middling_places_beat_one_first() -> None:
    fused = fuse([Ranking([1, 2]), Ranking([3, 2])], 10)

    assert [id_ for id_, _ in fused] == [2, 1, 3]


def test_a_heavier_ranking_decides() -> None:
    fused = fuse([Ranking([1, 2]), Ranking([2, 1], 1.5)], 10)

    assert [id_ for id_, _ in fused] == [2, 1]


def test_a_ranking_without_weight_brings_nothing_in() -> None:
    assert fuse([Ranking([1]), Ranking([2], 0)], 10) == [(1, 1.0)]


def test_a_weight_as_small_as_can_be_is_still_one() -> None:
    assert fuse([Ranking([1], 5e-324)], 10) == [(1, 1.0)]


def test_nothing_makes_nothing() -> None:
    assert fuse([], 10) == fuse([Ranking([])], 10) == fuse([Ranking([1], 0)], 10) == []
