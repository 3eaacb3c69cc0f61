from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.rag.evaluation import MEASURES, Assessment, Judgements, assess

ITEMS = [f"d{number}" for number in range(30)]
runs = st.lists(st.sampled_from(ITEMS), unique=True)
gains = st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 4)).filter(lambda found: any(found.values()))


def judging(gains: dict[str, dict[str, int]]) -> Judgements:
    return Judgements({query: f"what is {query}" for query in gains}, gains)


def naive_measures(items: list[str], gains: dict[str, int]) -> dict[str, float]:
    def dcg(ranked: list[int]) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(ranked[:10], start=1))

    found = [gains.get(item, 0) for item in items]
    places = [rank for rank, gain in enumerate(found, start=1) if gain]
    num_relevant = sum(gain > 0 for gain in gains.values())
    return {
        "nDCG@10": dcg(found) / dcg(sorted(gains.values(), reverse=True)),
        "recall@100": len(places) / num_relevant,
        "MRR": 1 / places[0] if places else 0,
        "MAP@100": sum(nth / rank for nth, rank in enumerate(places, start=1)) / num_relevant,
    }


@settings(deadline=None)  # ir-measures is loaded by the first example
@given(runs, gains)
def test_measures_are_the_textbooks(items: list[str], gains: dict[str, int]) -> None:
    assessment = assess({"q": items}, judging({"q": gains}))

    expected = naive_measures(items, gains)
    assert {name: assessment.estimate(name).mean for name in MEASURES} == pytest.approx(expected)


def test_a_question_without_an_answer_scores_0_and_one_without_judgement_does_not_count() -> None:
    judgements = judging({"answered": {"d1": 2}, "unanswered": {"d1": 1}, "hopeless": {"d1": 0}})

    assessment = assess({"answered": ["d1"], "hopeless": ["d1"]}, judgements)

    assert assessment.estimate("MRR").mean == 0.5


def test_equal_rankings_are_no_gain_however_different_the_questions_are() -> None:
    values = np.random.default_rng(1).random(50)
    better, worse = Assessment({"MRR": values + 0.1}), Assessment({"MRR": values})

    gain = better.gain_over(worse, "MRR")

    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert worse.estimate("MRR").high - worse.estimate("MRR").low > 0.05


def test_the_interval_is_the_one_that_the_normal_distribution_gives_for_many_questions() -> None:
    values = np.random.default_rng(2).random(400)
    error = 1.96 * values.std() / math.sqrt(400)

    estimate = Assessment({"MRR": values}).estimate("MRR")

    assert (estimate.low, estimate.high) == pytest.approx(
        (estimate.mean - error, estimate.mean + error), abs=0.15 * error
    )
