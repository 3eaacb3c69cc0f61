from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.protocols import RerankResult


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1))
def test_relevance_is_the_textbooks_sigmoid_without_overflow(logits: list[float]) -> None:
    relevance = RerankResult(np.array(logits, dtype=np.float32), 1).relevance

    expected = 1 / (1 + np.exp(-np.clip(np.array(logits), -700, 700)))
    np.testing.assert_allclose(relevance, expected, rtol=1e-5, atol=1e-30)
    assert relevance.dtype == np.float32


def test_close_logits_keep_their_order_even_in_half_precision() -> None:
    relevance = RerankResult(np.array([8.125, 8.1328125], dtype=np.float16).astype(np.float32), 1).relevance

    assert relevance[0] < relevance[1]
