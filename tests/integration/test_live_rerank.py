"""Rerank by the default model in a real server: dialects, time limits, spans, and Cohere's SDK."""

from __future__ import annotations

from collections.abc import Iterator

import cohere
import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import RERANK

pytestmark = pytest.mark.integration

QUERY = "what is the capital of France?"
DOCUMENTS = [
    "Bananas grow in the tropics.",
    "Paris is the capital and largest city of France.",
    "Berlin is the capital of Germany.",
]
ARTICLE = (
    "🍌 Bananas grow in the tropics. Paris is the capital and largest city of France. Rivers carry sand to the sea."
)


@pytest.fixture
def v1(live_server: ServerProcess) -> Iterator[cohere.Client]:
    with cohere.Client("any", base_url=live_server.url, timeout=60) as client:
        yield client


@pytest.fixture
def v2(live_server: ServerProcess) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2("any", base_url=live_server.url, timeout=60) as client:
        yield client


def test_coheres_sdks_rank_alike(v1: cohere.Client, v2: cohere.ClientV2) -> None:
    first = v1.rerank(model=RERANK, query=QUERY, documents=DOCUMENTS, return_documents=True)
    second = v2.rerank(model=RERANK, query=QUERY, documents=DOCUMENTS)

    assert first.results[0].index == 1
    assert first.results[0].document and first.results[0].document.text == DOCUMENTS[1]
    expected = {result.index: result.relevance_score for result in first.results}
    assert {result.index: result.relevance_score for result in second.results} == pytest.approx(expected, abs=1e-3)
    assert all(0 <= score <= 1 for score in expected.values())


def test_coheres_sdk_cuts_long_documents_as_cohere_does(v2: cohere.ClientV2) -> None:
    answer = v2.rerank(
        model=RERANK, query=QUERY, documents=[DOCUMENTS[1] + " word" * 2000, DOCUMENTS[0]], max_tokens_per_doc=4096
    )

    assert answer.results[0].index == 0
    assert answer.meta and answer.meta.warnings


def test_a_relevant_span_is_the_sentence_that_answers(v2: cohere.ClientV2) -> None:
    spans = cohere.RerankRelevantSpans(mode="enabled", threshold=0.5)

    answer = v2.rerank(model=RERANK, query=QUERY, documents=[*DOCUMENTS[:1], ARTICLE], top_n=1, relevant_spans=spans)

    (span,) = answer.results[0].relevant_spans or []
    assert ARTICLE[span.start : span.end] == DOCUMENTS[1]
    assert span.score > 0.9


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/reranking", "/v1/reranking"])
def test_every_path_gives_the_same_order(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"model": RERANK, "query": QUERY, "documents": [*DOCUMENTS, "", DOCUMENTS[1]]}).json()

    order = [result["index"] for result in answer["results"]]
    assert order[:3] == [1, 4, 2]
    assert answer["usage"]["cached_inputs"] >= 1


def test_tei_and_score_give_the_same_numbers(http: httpx.Client) -> None:
    ranks = http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "return_text": True}).json()
    pairs = http.post("/v1/score", json={"model": RERANK, "text_1": QUERY, "text_2": DOCUMENTS}).json()

    expected = {item["index"]: item["score"] for item in pairs["data"]}
    assert {rank["index"]: rank["score"] for rank in ranks} == pytest.approx(expected, abs=1e-3)
    assert all(rank["text"] == DOCUMENTS[rank["index"]] for rank in ranks)


def test_pairs_of_different_queries_keep_their_places(http: httpx.Client) -> None:
    queries = [QUERY, "where do bananas grow?", "capital of Germany"] * 8
    documents = [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1]] * 8

    scores = [
        item["score"] for item in http.post("/score", json={"text_1": queries, "text_2": documents}).json()["data"]
    ]

    assert all(score > 0.9 for index, score in enumerate(scores) if index % 3 < 2)
    assert all(score < 0.9 for score in scores[2::3])


def test_a_short_time_gives_part_of_the_ranking_and_says_so(http: httpx.Client) -> None:
    documents = [
        f"{text} Number {index}. " + "Some more words follow here. " * 40 for index in range(60) for text in DOCUMENTS
    ]

    request = {"model": RERANK, "query": QUERY, "documents": documents, "max_tokens_per_doc": 100}
    answer = http.post("/v1/rerank", json={**request, "timeout_ms": 50}).json()

    usage = answer["usage"]
    num_scored = usage["scored_documents"]
    assert 1 <= num_scored == len(answer["results"]) == answer["meta"]["reranked"] < len(documents)
    assert {result["index"] for result in answer["results"]} == set(range(num_scored))
    assert answer["meta"]["warnings"]
    again = http.post("/v1/rerank", json={**request, "documents": documents[:num_scored]}).json()["usage"]
    assert usage["truncated_inputs"] == again["truncated_inputs"] == num_scored
    assert usage["prompt_tokens"] == again["prompt_tokens"]


def test_of_a_document_that_is_there_twice_one_is_computed(http: httpx.Client) -> None:
    documents = ["Ottawa is the capital of Canada, and nobody has asked about it before."] * 2

    answer = http.post("/v2/rerank", json={"query": QUERY, "documents": documents}).json()

    assert answer["usage"]["cached_inputs"] == 1
    assert answer["meta"]["cached_tokens"] * 2 == answer["usage"]["prompt_tokens"]


def test_an_error_names_the_document_as_it_was_sent(http: httpx.Client) -> None:
    long = "word " * 600

    ranking = http.post("/v1/rerank", json={"query": QUERY, "documents": ["a", "a", long]}).json()["error"]
    pairs = http.post("/v1/score", json={"text_1": ["p", "q"] * 2, "text_2": ["a", "a", "a", long]}).json()["error"]

    assert (ranking["param"], pairs["param"]) == ("documents[2]", "text_2[3]")
    assert ranking["message"].startswith("documents[2] and the query have")
    assert pairs["message"].startswith("text_2[3] and the query have")


def test_max_tokens_per_doc_cuts_documents(http: httpx.Client) -> None:
    request = {"model": RERANK, "query": QUERY, "documents": ["Bananas grow here and there. " + DOCUMENTS[1]]}

    whole = http.post("/v1/rerank", json=request).json()
    cut = http.post("/v1/rerank", json={**request, "max_tokens_per_doc": 5}).json()

    assert (whole["usage"]["truncated_inputs"], cut["usage"]["truncated_inputs"]) == (0, 1)
    assert cut["usage"]["prompt_tokens"] < whole["usage"]["prompt_tokens"]
    assert cut["results"][0]["relevance_score"] < whole["results"][0]["relevance_score"]
