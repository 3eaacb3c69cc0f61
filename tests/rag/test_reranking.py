from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.rag.reranking import blend

share = st.floats(0, 1)


@given(share, share)
def test_a_blend_lies_between_both(fused: float, relevance: float) -> None:
    assert min(fused, relevance) <= blend(fused, relevance) + 1e-12
    assert blend(fused, relevance) <= max(fused, relevance) + 1e-12


@given(share, share, share)
def test_what_was_not_scored_does_not_pass_a_better_candidate_that_was(
    better: float, worse: float, relevance: float
) -> None:
    better, worse = max(better, worse), min(better, worse)

    assert blend(better, relevance) >= blend(worse, None)
