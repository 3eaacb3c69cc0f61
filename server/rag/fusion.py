"""Weighted reciprocal rank fusion: several rankings become one. Knows nothing of where they come from.

Ranks are added up, not scores: cosines and bm25 are of different kinds, and nobody can say what one is worth in the
other. A place in a ranking means the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

K = 60
"""How little the first places stand out. The constant of Cormack, Clarke and Buettcher (2009), who found that its exact
value hardly matters."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Chunk ids, best first, none twice. `weight` says how much the ranking counts; 0 is not at all."""

    ids: Sequence[int]
    weight: float = 1.0


def fuse(rankings: Iterable[Ranking], limit: int) -> list[tuple[int, float]]:
    """Merge rankings into one of at most `limit` ids with their scores, best first.

    Scores lie in 0..1: 1 is the first place in every ranking; at equal weights, the first place in one of two is 0.5.
    Ties go to what the earlier ranking has, or has first.
    """
    counted = [ranking for ranking in rankings if ranking.weight > 0]
    total_weight = sum(ranking.weight for ranking in counted)
    scores: dict[int, float] = {}
    for ranking in counted:
        share = ranking.weight / total_weight
        for rank, id_ in enumerate(ranking.ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + share * (K + 1) / (K + rank)
    best_first = sorted(scores.items(), key=lambda item: -item[1])  # stable: ties stay in the order of arrival
    return [(id_, min(1.0, score)) for id_, score in best_first[:limit]]
