"""Bodies as applications send them, and the fields of the answers that their sources read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

QUERY = "red cat"
TEXTS = ["a dog", "a red cat", "a cat"]
SCORES = pytest.approx({0: 0.2689414, 1: 0.7310586, 2: 0.5})

Scores = dict[int, float]


def read_open_webui(body: Any) -> Scores:
    """It needs all results back: what is missing would shift the rest."""
    in_order = sorted(body["results"], key=lambda result: result["index"])
    return dict(enumerate(result["relevance_score"] for result in in_order))


def read_dify_openai(body: Any) -> Scores:
    assert all(result["document"]["text"] == TEXTS[result["index"]] for result in body["results"])
    return read_results(body)


def read_dify_cohere(body: Any) -> Scores:
    assert body["meta"]["billed_units"]["search_units"] == 1
    return read_dify_openai(body)


def read_dify_tei(body: Any) -> Scores:
    assert all(rank["text"] == TEXTS[rank["index"]] for rank in body)
    return read_tei(body)


def read_tei(body: Any) -> Scores:
    return {rank["index"]: rank["score"] for rank in body}


def read_ragflow_xinference(body: Any) -> Scores:
    for tokens in (body["tokens"], body["meta"]["tokens"]):  # older and newer releases
        assert tokens["input_tokens"] + tokens["output_tokens"] > 0
    return read_results(body)


def read_jina(body: Any) -> Scores:
    assert "detail" not in body
    assert body["usage"]["total_tokens"] > 0
    return read_results(body)


def read_litellm(body: Any) -> Scores:
    assert isinstance(body["id"], str)
    assert body["usage"]["total_tokens"] - body["usage"]["prompt_tokens"] == 0
    assert all(isinstance(result.get("document", {}), dict) for result in body["results"])
    return read_results(body)


def read_voyage(body: Any) -> Scores:
    assert body["usage"]["total_tokens"] > 0
    return {item["index"]: item["relevance_score"] for item in body["data"]}


def read_results(body: Any) -> Scores:
    return {result["index"]: result["relevance_score"] for result in body["results"]}


COMMON = {"model": "ranker", "query": QUERY, "documents": TEXTS}
TEI = {"query": QUERY, "texts": TEXTS}
XINFERENCE = {"top_n": 3, "max_chunks_per_doc": None, "return_documents": None, "return_len": None, "kwargs": "{}"}

CLIENTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Scores]]] = {
    "open webui": ("/v1/rerank", {**COMMON, "top_n": 3}, read_open_webui),
    "dify openai": ("/v1/rerank", {**COMMON, "top_n": None, "return_documents": True}, read_dify_openai),
    "dify tei": ("/rerank", {**TEI, "return_text": True}, read_dify_tei),
    "dify xinference": ("/v1/rerank", {**COMMON, **XINFERENCE, "return_documents": True}, read_dify_openai),
    "dify cohere": ("/v1/rerank", {**COMMON, "return_documents": True, "top_n": 3}, read_dify_cohere),
    "ragflow xinference": (
        "/v1/rerank",
        {**COMMON, "return_documents": "true", "return_len": "true"},
        read_ragflow_xinference,
    ),
    "ragflow jina": ("/v1/rerank", {**COMMON, "top_n": 3}, read_jina),
    "ragflow localai": ("/rerank", {**COMMON, "top_n": 3}, read_results),
    "ragflow huggingface": ("/rerank", {**TEI, "raw_scores": False, "truncate": True}, read_tei),
    "langchain jina": ("/v1/rerank", {**COMMON, "top_n": 3}, read_jina),
    "langchain cohere": ("/v2/rerank", {**COMMON, "top_n": 3, "max_tokens_per_doc": 4096}, read_results),
    "haystack tei": (
        "/rerank",
        {**TEI, "raw_scores": False, "truncate": True, "truncation_direction": "Right"},
        read_tei,
    ),
    "litellm cohere": ("/v1/rerank", {**COMMON, "top_n": 3, "return_documents": True}, read_litellm),
    "litellm vllm": ("/rerank", {**COMMON, "return_documents": True, "max_tokens_per_doc": 512}, read_litellm),
    "litellm jina": ("/v1/rerank", {**COMMON, "top_n": 3, "return_documents": True}, read_litellm),
    "litellm infinity": ("/v1/rerank", {**COMMON, "return_documents": False}, read_litellm),
    "litellm huggingface": (
        "/rerank",
        {
            **TEI,
            "top_n": 3,
            "return_text": True,
            "raw_scores": False,
            "truncate": False,
            "truncation_direction": "Right",
        },
        read_dify_tei,
    ),
    "voyage": ("/v1/rerank", {**COMMON, "top_k": None, "truncation": True}, read_voyage),
    "llama.cpp": ("/reranking", {**COMMON, "top_n": 3}, read_jina),
}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_gets_the_scores_where_it_looks_for_them(client: httpx.AsyncClient, name: str) -> None:
    path, request, read = CLIENTS[name]

    response = await client.post(path, json=request, headers={"authorization": "Bearer anything"})

    assert response.status_code == 200, response.text
    assert read(response.json()) == SCORES


@pytest.mark.parametrize("key", ["detail", "message"])
async def test_jinas_xinferences_and_coheres_clients_find_the_error_message(
    client: httpx.AsyncClient, key: str
) -> None:
    body = (await client.post("/v1/rerank", json={**COMMON, "documents": []})).json()

    assert "results" not in body  # by which LangChain tells an error
    assert body[key].startswith("documents is an empty list")
