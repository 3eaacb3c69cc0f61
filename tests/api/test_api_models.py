"""`GET /v1/models`, `/health`, `/ready`, `/version`."""

from __future__ import annotations

import httpx
import pytest

from server.types import EncoderCounts, LoadProgress, ModelFacts
from tests.api.conftest import Stack


async def test_models_are_listed_with_what_clients_want_to_know(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()

    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["talker", "actor", "embedder", "ranker"]
    assert body["data"][0] == {
        "id": "talker",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "local",
        "kind": "chat",
        "capabilities": ["chat", "completion", "tools"],
        "context_length": 4096,
        "dimensions": None,
        "state": "ready",
        "num_requests": 0,
        "memory_bytes": None,
        "pinned": False,
        "expires_in_s": None,
        "description": "Talks.",
        "aliases": ["openai/talker"],
        "display": {"parameters": None, "architecture": None, "hf_repo": None},
        "runtime": {"architecture": None, "num_parameters": None, "load_s": 0.0, "details": {}},
        "model_name": "talker",
        "model_type": "LLM",
        "model_ability": ["chat", "generate", "tools"],
    }


@pytest.mark.parametrize(
    ("name", "model_type", "ability"), [("embedder", "embedding", ["embed"]), ("ranker", "rerank", ["rerank"])]
)
async def test_xinferences_clients_can_tell_what_a_model_is(
    client: httpx.AsyncClient, name: str, model_type: str, ability: list[str]
) -> None:
    """Its own client takes another class for each type and fails without one; Dify's plugin looks as well."""
    body = (await client.get(f"/v1/models/{name}")).json()

    assert (body["model_name"], body["model_type"], body["model_ability"]) == (name, model_type, ability)


async def test_a_loaded_model_shows_what_its_worker_found_out(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.actor.facts = ModelFacts(
        context_length=4096, num_parameters=135_000_000, architecture="llama", load_s=0.5, details={"threads": "2"}
    )

    loaded = (await client.get("/v1/models/actor")).json()
    unloaded = (await client.get("/v1/models/ranker")).json()

    assert loaded["runtime"] == {
        "architecture": "llama",
        "num_parameters": 135_000_000,
        "load_s": 0.5,
        "details": {"threads": "2"},
    }
    assert unloaded["runtime"] is None


async def test_an_encoder_shows_what_it_has_computed(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.embedder.encoded = EncoderCounts(num_batches=2, num_items=9, num_tokens=90, num_padding_tokens=6)

    assert (await client.get("/v1/models/embedder")).json()["encoded"] == {
        "num_batches": 2,
        "num_items": 9,
        "num_tokens": 90,
        "num_padding_tokens": 6,
        "num_cached_inputs": 0,
    }


@pytest.mark.parametrize("name", ["talker", "openai/talker"])
async def test_a_model_is_found_by_id_and_alias(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/v1/models/{name}")).json()["id"] == "talker"


async def test_an_unknown_model_is_not_found_in_both_dialects(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models/nobody")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["detail"] == "Model 'nobody' not found"


@pytest.mark.parametrize("path", ["/ready", "/health/ready", "/readyz"])
async def test_ready_names_the_model_that_failed_and_why(client: httpx.AsyncClient, stack: Stack, path: str) -> None:
    assert (await client.get(path)).status_code == 200
    stack.chat.state, stack.chat.failure = "failed", "file is truncated"

    response = await client.get(path)

    assert response.status_code == 503
    assert response.json()["status"] == "not_ready"
    assert response.json()["models"]["talker"] == {"state": "failed", "reason": "file is truncated"}
    assert response.json()["models"]["actor"] == {"state": "ready"}
    assert (await client.get("/v1/models/talker")).json()["error"] == "file is truncated"


async def test_a_load_tells_how_far_it_is(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.state, stack.chat.progress = "loading", LoadProgress(elapsed_s=3, expected_s=12)
    stack.chat.waiting_for = "model 'talker' needs 5.1 GiB"
    loading = {"fraction": 0.25, "elapsed_s": 3, "remaining_s": 9}

    model, ready = (await client.get("/v1/models/talker")).json(), (await client.get("/ready")).json()

    assert (model["loading"], model["waiting_for"]) == (loading, stack.chat.waiting_for)
    assert ready["models"]["talker"] == {"state": "loading", "reason": stack.chat.waiting_for, "loading": loading}


@pytest.mark.parametrize("path", ["/health", "/health/live", "/livez"])
async def test_the_process_is_healthy_whatever_the_models_do(
    client: httpx.AsyncClient, stack: Stack, path: str
) -> None:
    stack.chat.state = "failed"

    assert (await client.get(path)).status_code == 200


async def test_the_version_is_told(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": "1.2.3"}
