"""The rerank service over a fake reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import ContextLengthExceeded
from server.models.registry import ModelEntry, ModelRegistry
from server.protocols import RerankResult
from server.services.pair_scoring import ScoringOptions
from server.services.relevant_spans import SpanOptions
from server.services.rerank import MAX_CONCURRENT_QUERIES, MAX_WINDOWS, RerankService
from tests.fakes.models import FakeReranker

CONFIG = ModelConfig(id="ranker", kind="rerank", backend="sentence_transformers", source="file:x")
LONG = " ".join(f"Sentence number {index} is here." for index in range(100))


@pytest.fixture
def reranker() -> FakeReranker:
    return FakeReranker(max_characters=10_000)


def service_of(reranker: FakeReranker, *, max_documents: int = 1000) -> RerankService:
    return RerankService(ModelRegistry([ModelEntry(CONFIG, reranker)]), Limits(max_documents=max_documents))


async def test_a_document_has_a_bounded_number_of_windows(reranker: FakeReranker) -> None:
    await service_of(reranker).rerank(None, "q", [LONG, LONG + "!"], spans=SpanOptions())

    assert len(reranker.calls[1]) <= 2 * MAX_WINDOWS


async def test_all_windows_together_are_no_more_than_a_request_may_have_documents(reranker: FakeReranker) -> None:
    documents = [f"{LONG} {index}" for index in range(10)]

    ranking = await service_of(reranker, max_documents=25).rerank(None, "q", documents, spans=SpanOptions(threshold=0))

    assert len(reranker.calls[1]) <= 20
    assert all(document.spans for document in ranking.documents)


async def test_documents_without_text_have_no_spans(reranker: FakeReranker) -> None:
    ranking = await service_of(reranker).rerank(None, "q", ["", "  \n"], spans=SpanOptions())

    assert [document.spans for document in ranking.documents] == [(), ()]
    assert len(reranker.calls) == 1


async def test_windows_that_are_too_long_are_cut_even_where_documents_are_refused(reranker: FakeReranker) -> None:
    await service_of(reranker).rerank(None, "q", ["A document."], spans=SpanOptions())

    assert [options["truncate"] for options in reranker.options] == ["error", "end"]


async def test_spans_share_the_time_of_the_request(reranker: FakeReranker) -> None:
    await service_of(reranker).rerank(None, "q", ["A document."], timeout_s=30, spans=SpanOptions())

    first, second = (options["timeout_s"] for options in reranker.options)
    assert first == 30
    assert isinstance(second, float) and 0 < second < 30


async def test_nothing_scored_in_time_is_an_empty_ranking(reranker: FakeReranker) -> None:
    reranker.max_in_time = 0

    ranking = await service_of(reranker).rerank(None, "q", ["a", "b"], timeout_s=1, spans=SpanOptions())

    assert (ranking.documents, ranking.num_scored, ranking.num_documents) == ((), 0, 2)


async def test_errors_and_counts_are_those_of_the_documents_that_were_sent(reranker: FakeReranker) -> None:
    """Equal ones too: the model computes them once, but each has its place."""
    reranker.max_characters = 3
    service = service_of(reranker)

    with pytest.raises(ContextLengthExceeded, match=r"^documents\[2\]") as caught:
        await service.rerank(None, "q", ["a", "a", "long"])
    ranking = await service.rerank(None, "q", ["long", "a", "long"], scoring=ScoringOptions(truncate="end"))

    assert caught.value.param == "documents[2]"
    assert (ranking.num_prompt_tokens, ranking.num_truncated, ranking.num_cached) == (9, 2, 1)


async def test_what_was_not_scored_in_time_is_not_counted(reranker: FakeReranker) -> None:
    reranker.max_in_time = 1

    ranking = await service_of(reranker).rerank(None, "q", ["a", "bb", "a"], timeout_s=1)

    assert (ranking.num_scored, ranking.num_prompt_tokens) == (2, 2)
    assert (ranking.num_cached, ranking.num_cached_tokens) == (1, 1)


async def test_an_error_about_a_pair_names_its_place_in_the_request(reranker: FakeReranker) -> None:
    reranker.max_characters = 3

    with pytest.raises(ContextLengthExceeded, match=r"^text_2\[3\] and the query have 4 tokens") as caught:
        await service_of(reranker).score(None, ["p", "q", "p", "q"], ["a", "b", "c", "long"])

    assert caught.value.param == "text_2[3]"


async def test_an_error_about_one_of_many_queries_names_its_place(reranker: FakeReranker) -> None:
    async def refuse(query: str, documents: Sequence[str], **_: object) -> RerankResult:
        if query == "long":
            raise ContextLengthExceeded("the query has 9 tokens but 4 fit; shorten the query", param="query")
        return RerankResult(np.zeros(len(documents), np.float32), 1)

    reranker.rerank = refuse  # type: ignore[method-assign,assignment]  # the fake has no limit of its own for queries

    with pytest.raises(ContextLengthExceeded, match=r"^text_1\[1\] has 9 tokens .*shorten text_1\[1\]$") as caught:
        await service_of(reranker).score(None, ["a", "long"], ["x", "y"])

    assert caught.value.param == "text_1[1]"


async def test_many_queries_ask_the_model_a_few_at_a_time(reranker: FakeReranker) -> None:
    reranker.gate = asyncio.Event()
    texts = [f"query {index}" for index in range(MAX_CONCURRENT_QUERIES * 2)]

    work = asyncio.create_task(service_of(reranker).score(None, texts, texts))
    await reranker.begun.wait()
    num_begun = len(reranker.calls)
    reranker.gate.set()
    result = await work

    assert num_begun <= MAX_CONCURRENT_QUERIES
    assert len(reranker.calls) == len(result.scores) == len(texts)


async def test_the_first_error_of_many_queries_is_the_requests(reranker: FakeReranker) -> None:
    reranker.max_characters = 1

    with pytest.raises(ContextLengthExceeded):
        await service_of(reranker).score(None, ["a", "b"], ["too long", "x"])
