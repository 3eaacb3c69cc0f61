from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from server.encoders.encoder import EncodedItem, Pairs, Rows, TokenBudget
from server.encoders.known_pairs import check_ranking
from server.errors import LoadFailed
from server.types import ModelFacts


class FakeReranker:
    """An `Encoder` of pairs that scores by a function of their texts; a pair's token is its number."""

    def __init__(self, score: Callable[[str, str], float]) -> None:
        self.facts = ModelFacts(context_length=64)
        self.budget = TokenBudget(64)
        self._score = score
        self._pairs: list[tuple[str, str]] = []

    def tokenize(self, inputs: Pairs) -> list[EncodedItem]:
        first = len(self._pairs)
        self._pairs += [(inputs.query, document) for document in inputs.documents]
        return [EncodedItem([number], [0]) for number in range(first, len(self._pairs))]

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        return np.array([self._score(*self._pairs[item.token_ids[0]]) for item in items], np.float32)


def common_words(query: str, document: str) -> float:
    return float(len(set(query.strip("?").split()) & set(document.lower().rstrip(".").split())))


def test_a_reranker_that_knows_the_answers_passes() -> None:
    check_ranking(FakeReranker(common_words))


def test_the_opposite_ranking_is_refused_with_the_scores() -> None:
    with pytest.raises(LoadFailed, match=r"an irrelevant document scored -\d\.000, the relevant one -\d\.000"):
        check_ranking(FakeReranker(lambda query, document: -common_words(query, document)))


def test_a_reranker_that_likes_some_texts_whatever_the_query_is_refused() -> None:
    with pytest.raises(LoadFailed, match="failed its self-test"):
        check_ranking(FakeReranker(lambda _query, document: float(len(document))))


def test_a_right_order_without_a_clear_lead_is_refused() -> None:
    with pytest.raises(LoadFailed, match="failed its self-test"):
        check_ranking(FakeReranker(lambda query, document: common_words(query, document) / 100))


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(LoadFailed, match="scored nan"):
        check_ranking(FakeReranker(lambda _query, _document: float("nan")))
