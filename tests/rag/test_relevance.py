from __future__ import annotations

import asyncio

import pytest

from server.errors import ModelUnavailable
from server.rag.relevance import relevance
from tests.fakes.models import FakeReranker


async def test_texts_are_scored_in_their_order() -> None:
    scores = await relevance(FakeReranker(), "red cat", ["a red cat", "a dog"], timeout_s=5)

    assert scores == pytest.approx([0.7310586, 0.2689414])


async def test_what_was_not_scored_in_time_is_not_known() -> None:
    assert await relevance(FakeReranker(max_in_time=1), "a", ["a", "b"], timeout_s=5) == [0.5, None]


async def test_a_model_that_fails_or_hangs_knows_nothing() -> None:
    failing = FakeReranker(error=ModelUnavailable("loading"))
    hanging = FakeReranker(gate=asyncio.Event())

    assert await relevance(failing, "a", ["a", "b"], timeout_s=5) == [None, None]
    assert await relevance(hanging, "a", ["a", "b"], timeout_s=0.01) == [None, None]
    assert hanging.cancelled.is_set()
