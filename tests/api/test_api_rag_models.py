"""Models of `rag_models`: whoever asks them is answered from vector stores."""

from __future__ import annotations

import httpx
import pytest

from server.types import ChatPrompt
from tests.api.conftest import Stack
from tests.api.grounded_requests import ASK, HI, error_of, message_of
from tests.api.test_api_chat import URL
from tests.fakes.sources import ANNOTATION

pytestmark = pytest.mark.usefixtures("kneading")


@pytest.mark.parametrize("name", ["handbook", "gpt-4o"])
async def test_a_rag_model_answers_clients_that_know_nothing_of_sources(
    client: httpx.AsyncClient, stack: Stack, name: str
) -> None:
    response = await client.post(URL, json={"model": name, "messages": HI})

    assert response.json()["model"] == "handbook"
    assert response.json()["choices"][0]["message"]["annotations"] == [ANNOTATION]
    assert stack.stores.calls[0] == ("id_of", ("manuals",), {})
    assert stack.stores.last_search[1][2].max_results == 5
    [request] = stack.chat.requests
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.messages[0].content.startswith("You are the help desk.\n\n")
    assert request.sampling.max_tokens == 77  # the chat model's default


async def test_a_rag_model_takes_documents_besides(client: httpx.AsyncClient) -> None:
    message = await message_of(client, {"model": "handbook", "messages": HI, "documents": ["Salt it."]})

    assert [source["file_id"] for source in message["x"]["sources"]] == ["doc:0", "file-1"]


async def test_a_rag_model_takes_no_other_stores(client: httpx.AsyncClient) -> None:
    status, error = await error_of(client, {**ASK, "model": "handbook"})

    assert (status, error["param"]) == (400, "tools")
    assert "'talker'" in error["message"]


async def test_a_rag_model_only_chats(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/completions", json={"model": "handbook", "prompt": "a"})

    assert response.json()["error"]["code"] == "model_kind_mismatch"


async def test_a_rag_model_is_listed_with_what_it_can(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()["data"]
    one = (await client.get("/v1/models/gpt-4o")).json()

    assert [model["id"] for model in listed] == ["talker", "actor", "embedder", "ranker", "handbook"]
    assert listed[-1] == one
    assert one["capabilities"] == ["chat", "tools", "file_search"]
    assert (one["kind"], one["state"], one["context_length"]) == ("chat", "ready", 4096)
    assert (one["description"], one["aliases"]) == ("Answers from the manuals.", ["gpt-4o"])
    assert one["rag"] == {"chat_model": "talker", "vector_stores": ["manuals"]}
