"""How good rankings are: measures over questions with known answers, and how sure few questions let one be.

Knows nothing of how rankings come about. The measures are computed by ir-measures, which is trec_eval, so that figures
can be compared with what others publish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Run = Mapping[str, Sequence[str]]
"""Query id to item ids, best first, none twice. Items are what is judged: documents, or chunks."""

Gains = dict[str, dict[str, int]]
"""Query id to item id to how relevant that is: 1 and more; what is not listed is irrelevant."""

MEASURES = {"nDCG@10": "nDCG@10", "recall@100": "R@100", "MRR": "RR", "MAP@100": "AP@100"}
"""What is measured, and what ir-measures calls it."""

_NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judgements:
    """Questions, and what answers them. Only questions that something answers count."""

    queries: dict[str, str]
    gains: Gains

    @property
    def judged(self) -> dict[str, str]:
        """The questions that count."""
        answered = {id_ for id_, gains in self.gains.items() if any(gain > 0 for gain in gains.values())}
        return {id_: text for id_, text in self.queries.items() if id_ in answered}


@dataclass(frozen=True)
class Estimate:
    """A mean over the questions; 95 % of all sets of as many questions of the kind would give one from low to high."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Assessment:
    """What one way of ranking scores for each question, in an order that all assessments of the questions share."""

    values: dict[str, npt.NDArray[np.float64]]

    def estimate(self, measure: str) -> Estimate:
        return _estimate(self.values[measure])

    def gain_over(self, other: Assessment, measure: str) -> Estimate:
        """How much better this is than the other, question by question. Sharper than comparing two estimates:
        questions differ more than ways to rank do."""
        return _estimate(self.values[measure] - other.values[measure])


def assess(run: Run, judgements: Judgements) -> Assessment:
    """Measure a run. Questions that it does not answer score 0."""
    import ir_measures  # loads scipy, which takes longer than everything else here

    names = {ir_measures.parse_measure(name): ours for ours, name in MEASURES.items()}
    places = {query: place for place, query in enumerate(judgements.judged)}
    values = {name: np.zeros(len(places)) for name in MEASURES}
    # Falling numbers in place of scores: where scores are equal, trec_eval would sort by item id.
    scores = {query: {item: -float(rank) for rank, item in enumerate(run.get(query, ()))} for query in places}
    gains = {query: judgements.gains[query] for query in places}
    for metric in ir_measures.iter_calc(list(names), gains, scores):
        values[names[metric.measure]][places[metric.query_id]] = metric.value
    return Assessment(values)


def _estimate(values: npt.NDArray[np.float64]) -> Estimate:
    """Mean and bootstrap interval, the same each time."""
    if not len(values):
        return Estimate(0.0, 0.0, 0.0)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(_NUM_RESAMPLES)]
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))
