"""Rerank over HTTP: what every dialect has in common, and where they differ."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import ContextLengthExceeded, Overloaded
from tests.api.conftest import Stack

REQUEST = {"model": "ranker", "query": "red cat", "documents": ["a dog", "a red cat", {"text": "a cat"}, "a dog"]}
TEI_REQUEST = {"query": "red cat", "texts": ["a dog", "a red cat"]}
PATHS = ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking"]


@pytest.mark.parametrize("path", PATHS)
async def test_documents_come_back_best_first_and_ties_by_index(client: httpx.AsyncClient, path: str) -> None:
    body = (await client.post(path, json=REQUEST)).json()

    assert [result["index"] for result in body["results"]] == [1, 2, 0, 3]
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == pytest.approx([0.7310586, 0.5, 0.2689414, 0.2689414])
    assert "document" not in body["results"][0]


async def test_cohere_and_jina_fields_are_both_there(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json=REQUEST)).json()

    assert body["meta"]["api_version"] == {"version": "1"}
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert body["meta"]["tokens"] == {"input_tokens": 24, "output_tokens": 0}
    assert body["meta"]["cached_tokens"] == 5
    assert body["usage"]["total_tokens"] == 24
    assert body["object"] == "list"
    assert body["model"] == "ranker"
    assert body["id"]


async def test_cohere_v2_has_its_version_and_none_of_jinas_fields(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v2/rerank", json={**REQUEST, "return_documents": True})).json()

    assert body["meta"]["api_version"] == {"version": "2"}
    assert body["meta"]["cached_tokens"] == 5
    assert set(body) == {"id", "results", "meta", "usage"}
    assert all(set(result) == {"index", "relevance_score"} for result in body["results"])


async def test_texts_make_it_tei_with_a_bare_list(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", json={**TEI_REQUEST, "return_text": True})

    assert response.json() == [
        {"index": 1, "score": pytest.approx(0.7310586), "text": "a red cat"},
        {"index": 0, "score": pytest.approx(0.2689414), "text": "a dog"},
    ]
    assert response.headers["x-hearth-scored-documents"] == "2"


@pytest.mark.parametrize("own", [{"top_k": 1}, {"top_k": None, "truncation": True}])
async def test_top_k_or_truncation_make_it_voyage_with_data(client: httpx.AsyncClient, own: dict[str, Any]) -> None:
    body = (await client.post("/v1/rerank", json={**REQUEST, **own, "return_documents": True})).json()

    assert body["object"] == "list"
    assert body["data"][0] == {"index": 1, "relevance_score": pytest.approx(0.7310586), "document": "a red cat"}
    assert len(body["data"]) == len(body["results"]) == (own["top_k"] or 4)
    assert body["usage"]["total_tokens"] == 24


async def test_the_model_sees_duplicates_and_tells_what_it_did_not_compute(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    body = (await client.post("/v1/rerank", json=REQUEST)).json()

    assert stack.reranker.calls == [["a dog", "a red cat", "a cat", "a dog"]]
    assert body["usage"]["cached_inputs"] == 1


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (4, 4), (100, 4), (None, 4), (0, 4)])
async def test_top_n_bounds_the_answer(client: httpx.AsyncClient, top_n: int | None, expected: int) -> None:
    """0 is what vLLM's clients send for all."""
    body = (await client.post("/v1/rerank", json={**REQUEST, "top_n": top_n})).json()

    assert len(body["results"]) == expected


@pytest.mark.parametrize("flag", [True, "true"])
@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v2/rerank"])
async def test_documents_are_returned_as_objects_on_request(client: httpx.AsyncClient, path: str, flag: object) -> None:
    body = (await client.post(path, json={**REQUEST, "return_documents": flag})).json()

    assert body["results"][0]["document"] == {"text": "a red cat"}


async def test_rank_fields_choose_what_is_ranked_and_other_fields_come_back(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    documents = [{"title": "red", "body": "cat", "page": 7}, {"body": "dog"}, "cat"]

    request = {**REQUEST, "documents": documents, "rank_fields": ["title", "body"], "return_documents": True}
    body = (await client.post("/v1/rerank", json=request)).json()

    assert stack.reranker.calls == [["red\ncat", "dog", "cat"]]
    assert body["results"][0]["document"] == {"text": "red\ncat", "title": "red", "body": "cat", "page": 7}


async def test_raw_scores_are_logits(client: httpx.AsyncClient) -> None:
    raw = (await client.post("/v1/rerank", json={**REQUEST, "raw_scores": True})).json()
    without_activation = (await client.post("/rerank", json={**REQUEST, "use_activation": False})).json()

    assert [result["relevance_score"] for result in raw["results"]] == [1, 0, -1, -1]
    assert raw["results"] == without_activation["results"]


async def test_without_a_model_the_first_reranker_answers(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json={"query": "q", "documents": ["d"]})).json()

    assert body["model"] == "ranker"


async def test_an_empty_document_is_scored_like_others(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json={**REQUEST, "documents": ["", "a cat"]})).json()

    assert [result["index"] for result in body["results"]] == [1, 0]


async def test_search_units_count_hundreds_of_documents(stack: Stack, client: httpx.AsyncClient) -> None:
    documents = [f"document {index}" for index in range(8)]

    body = (await client.post("/v2/rerank", json={**REQUEST, "documents": documents})).json()

    assert body["meta"]["billed_units"]["search_units"] == 1


# ---- long documents


LONG = {**REQUEST, "documents": ["x" * 101, "a red cat"]}


@pytest.mark.parametrize(
    ("path", "own", "expected"),
    [
        ("/v1/rerank", {}, "error"),
        ("/rerank", {"truncate": False}, "error"),
        ("/v1/rerank", {"truncate": "none"}, "error"),
        ("/v1/rerank", {"truncate": True}, "end"),
        ("/v1/rerank", {"truncate": "END"}, "end"),
        ("/rerank", {"truncate_prompt_tokens": -1}, "end"),
        ("/v1/rerank", {"max_tokens_per_doc": 7}, "end"),
        ("/v1/rerank", {"max_tokens_per_doc": 7, "truncate": "error"}, "error"),
        ("/v2/rerank", {}, "end"),
        ("/v2/rerank", {"truncate": "error"}, "error"),
        ("/v1/rerank", {"top_k": 1}, "end"),
        ("/v1/rerank", {"truncation": False}, "error"),
    ],
)
async def test_long_documents_are_refused_or_cut_as_asked_or_as_the_dialect_has_it(
    client: httpx.AsyncClient, stack: Stack, path: str, own: dict[str, Any], expected: str
) -> None:
    response = await client.post(path, json={**LONG, **own})

    assert stack.reranker.options[0]["truncate"] == expected
    assert stack.reranker.options[0]["max_tokens_per_doc"] == own.get("max_tokens_per_doc")
    if expected == "error":
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"
    else:
        assert response.json()["usage"]["truncated_inputs"] == 1
        assert response.json()["meta"]["warnings"] == ["1 of 2 documents were too long and were cut"]
        assert response.headers["x-hearth-truncated-inputs"] == "1"


@pytest.mark.parametrize(
    "own",
    [{"truncate": "start"}, {"truncate": "mean"}, {"truncation_direction": "Left"}, {"truncate_prompt_tokens": 9}],
)
async def test_cutting_elsewhere_than_at_the_end_is_refused(client: httpx.AsyncClient, own: dict[str, Any]) -> None:
    response = await client.post("/rerank", json={**REQUEST, **own})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(own))


# ---- time and lanes


async def test_what_was_not_scored_in_time_is_left_out_and_said(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.reranker.max_in_time = 2

    body = (await client.post("/v1/rerank", json={**REQUEST, "timeout_ms": 50})).json()

    assert stack.reranker.options[0]["timeout_s"] == 0.05
    assert [result["index"] for result in body["results"]] == [1, 0, 3]  # 3 equals 0
    assert body["meta"]["reranked"] == body["usage"]["scored_documents"] == 3
    assert body["meta"]["warnings"] == ["3 of 4 documents were scored in time"]
    assert (body["usage"]["prompt_tokens"], body["usage"]["cached_inputs"]) == (19, 1)


@pytest.mark.parametrize(
    ("priority", "lane"), [(0, "interactive"), (5, "bulk"), ("bulk", "bulk"), ("interactive", "interactive")]
)
async def test_priority_chooses_the_lane(
    client: httpx.AsyncClient, stack: Stack, priority: int | str, lane: str
) -> None:
    await client.post("/v2/rerank", json={**REQUEST, "priority": priority})

    assert stack.reranker.options[0]["lane"] == lane


# ---- relevant spans

FOX = "The quick fox runs over there. A red cat sits on the mat! And then it rains a lot."
SPANS = {"mode": "enabled", "threshold": 0.4}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_relevant_spans_are_the_sentences_that_matter(client: httpx.AsyncClient, path: str) -> None:
    request = {"query": "red cat", "documents": ["none of it", FOX], "top_n": 1, "relevant_spans": SPANS}

    (result,) = (await client.post(path, json=request)).json()["results"]

    (span,) = result["relevant_spans"]
    assert FOX[span["start"] : span["end"]] == "A red cat sits on the mat!"
    assert span["score"] == pytest.approx(0.7310586)


async def test_spans_are_looked_for_in_returned_documents_only(client: httpx.AsyncClient, stack: Stack) -> None:
    request = {"query": "red cat", "documents": ["none of it", FOX], "top_n": 1, "relevant_spans": SPANS}

    await client.post("/v2/rerank", json=request)

    assert len(stack.reranker.calls) == 2
    assert stack.reranker.calls[1] == [
        "The quick fox runs over there.",
        "A red cat sits on the mat!",
        "And then it rains a lot.",
    ]


async def test_spans_count_code_points_and_are_best_first(client: httpx.AsyncClient) -> None:
    document = "🙂🙂 a cat here. 🙂 a red cat there."

    request = {"query": "red cat", "documents": [document], "relevant_spans": {**SPANS, "max_spans": 2}}
    (result,) = (await client.post("/v2/rerank", json=request)).json()["results"]

    found = [document[span["start"] : span["end"]] for span in result["relevant_spans"]]
    assert found == ["🙂 a red cat there.", "🙂🙂 a cat here."]


@pytest.mark.parametrize("wanted", [{"mode": "disabled"}, None])
async def test_without_the_wish_there_are_no_spans(client: httpx.AsyncClient, wanted: object) -> None:
    body = (await client.post("/v2/rerank", json={**REQUEST, "relevant_spans": wanted})).json()

    assert all("relevant_spans" not in result for result in body["results"])


@pytest.mark.parametrize(
    "wanted", [{"mode": "on"}, {"threshold": 0.1}, {"mode": "enabled", "threshold": 2}, {"mode": "enabled", "max": 1}]
)
async def test_wrong_spans_are_refused_by_name(client: httpx.AsyncClient, wanted: dict[str, Any]) -> None:
    response = await client.post("/v2/rerank", json={**REQUEST, "relevant_spans": wanted})

    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("relevant_spans.")


# ---- errors


async def test_too_many_documents_are_refused_before_the_model_sees_them(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    response = await client.post("/v1/rerank", json={**REQUEST, "documents": ["x"] * 9})

    assert response.status_code == 413
    assert not stack.reranker.calls


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": None}, "documents", "missing_required_parameter"),
        ({"texts": ["a"]}, "documents", "invalid_value"),
        ({"documents": [{"title": "x"}]}, "documents", "invalid_type"),
        ({"documents": [{"title": 5}], "rank_fields": ["title"]}, "documents", "invalid_type"),
        ({"query": ""}, "query", "invalid_value"),
        ({"timeout_ms": 0}, "timeout_ms", "invalid_value"),
        ({"top_n": -1}, "top_n", "invalid_value"),
        ({"top_k": 0}, "top_k", "invalid_value"),
        ({"priority": "soon"}, "priority", "invalid_value"),
        ({"return_documents": "perhaps"}, "return_documents", "invalid_type"),
        ({"topn": 3}, "topn", "unknown_parameter"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_errors_have_openais_shape_and_what_others_read(
    client: httpx.AsyncClient, path: str, change: dict[str, Any], param: str, code: str
) -> None:
    response = await client.post(path, json={**REQUEST, **change})

    body = response.json()
    assert response.status_code == 400
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)
    assert body["message"] == body["detail"] == body["error"]["message"]


async def test_teis_errors_are_strings(client: httpx.AsyncClient, stack: Stack) -> None:
    empty = await client.post("/rerank", json={"query": "q", "texts": []})
    unknown = await client.post("/rerank", json={**TEI_REQUEST, "model": "nobody"})
    stack.reranker.error = Overloaded("model 'ranker' holds 9 requests")
    busy = await client.post("/rerank", json=TEI_REQUEST)

    assert (empty.status_code, empty.json()["error_type"]) == (400, "Validation")
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "Validation")
    assert (busy.status_code, busy.json()) == (
        503,
        {"error": "model 'ranker' holds 9 requests", "error_type": "Overloaded"},
    )
    assert busy.headers["retry-after"]


async def test_teis_clients_read_of_texts_and_not_of_documents(client: httpx.AsyncClient, stack: Stack) -> None:
    long = ContextLengthExceeded("documents[1] and the query have 900 tokens", param="documents[1]")
    stack.reranker.error = long
    of_one = (await client.post("/rerank", json=TEI_REQUEST)).json()["error"]
    of_all = (await client.post("/rerank", json={**TEI_REQUEST, "texts": ["x"] * 9})).json()["error"]
    others = (await client.post("/rerank", json=REQUEST)).json()["error"]

    assert of_one == "texts[1] and the query have 900 tokens"
    assert of_all.startswith("texts has 9 items")
    assert (others["message"], others["param"]) == (long.message, long.param)


async def test_an_unknown_model_is_named_where_old_clients_look(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json={**REQUEST, "model": "nobody"})).json()

    assert body["detail"] == "Model 'nobody' not found"
