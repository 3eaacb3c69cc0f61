"""Cohere's own SDK against the application: what it sends is accepted, what it reads is there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import cohere
import httpx
import pytest

from tests.api.conftest import Stack

DOCUMENTS = ["a dog", "a red cat", "a cat"]


@pytest.fixture
async def http_client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app())) as client:
        yield client


@pytest.fixture
def v1(http_client: httpx.AsyncClient) -> cohere.AsyncClient:
    return cohere.AsyncClient("any", base_url="http://test", httpx_client=http_client)


@pytest.fixture
def v2(http_client: httpx.AsyncClient) -> cohere.AsyncClientV2:
    return cohere.AsyncClientV2("any", base_url="http://test", httpx_client=http_client)


async def test_v1_ranks_strings_and_objects(v1: cohere.AsyncClient) -> None:
    answer = await v1.rerank(
        model="ranker",
        query="red cat",
        documents=[*DOCUMENTS[:2], {"text": "a cat", "page": "7"}],
        top_n=2,
        return_documents=True,
        max_chunks_per_doc=10,
    )

    assert [result.index for result in answer.results] == [1, 2]
    assert answer.results[0].relevance_score == pytest.approx(0.7310586)
    assert [result.document.text for result in answer.results if result.document] == ["a red cat", "a cat"]
    assert answer.meta and answer.meta.api_version and answer.meta.api_version.version == "1"
    assert answer.meta.tokens and answer.meta.tokens.input_tokens == 19
    assert answer.meta.billed_units and answer.meta.billed_units.search_units == 1


async def test_v1_ranks_by_the_fields_that_are_named(v1: cohere.AsyncClient) -> None:
    documents = [{"title": "dog", "body": "red cat"}, {"title": "red cat", "body": "dog"}]

    answer = await v1.rerank(model="ranker", query="red cat", documents=documents, rank_fields=["title"])

    assert [result.index for result in answer.results] == [1, 0]


async def test_v2_ranks_and_cuts_long_documents_with_a_warning(v2: cohere.AsyncClientV2) -> None:
    answer = await v2.rerank(model="ranker", query="red cat", documents=[*DOCUMENTS, "x" * 101])

    assert [result.index for result in answer.results] == [1, 2, 0, 3]
    assert answer.meta and answer.meta.warnings == ["1 of 4 documents were too long and were cut"]
    assert answer.meta.cached_tokens == 0


async def test_v2_gives_relevant_spans(v2: cohere.AsyncClientV2) -> None:
    document = "It rains a lot here. A red cat sits on the mat."

    answer = await v2.rerank(
        model="ranker",
        query="red cat",
        documents=[document],
        relevant_spans=cohere.RerankRelevantSpans(mode="enabled", threshold=0.4, max_spans=1),
        priority=1,
    )

    (span,) = answer.results[0].relevant_spans or []
    assert document[span.start : span.end] == "A red cat sits on the mat."
    assert span.score == pytest.approx(0.7310586)


async def test_errors_are_the_sdks_with_a_message(v1: cohere.AsyncClient, v2: cohere.AsyncClientV2) -> None:
    with pytest.raises(cohere.NotFoundError) as unknown:
        await v1.rerank(model="nobody", query="q", documents=DOCUMENTS)
    with pytest.raises(cohere.BadRequestError) as empty:
        await v2.rerank(model="ranker", query="q", documents=[])

    assert "nobody" in unknown.value.body["message"]
    assert empty.value.body["message"].startswith("documents is an empty list")
