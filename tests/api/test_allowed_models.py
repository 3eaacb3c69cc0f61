"""Models that a key may not ask do not exist for it: in no dialect, in no list, and in no message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.api.openapi.operation import Operation
from server.api.openapi.operations import OPERATIONS
from server.api.tenant import allowed_models
from tests.fakes.keyed_server import CHAT, HANDBOOK, Form, KeyedServer, keyed_server
from tests.fakes.keys import key_named
from tests.fakes.library import EMBEDDING, RERANK, jobs_done

NOTHING, _NOTHING = key_named("nothing", models=frozenset({"gone"}))
ALL, _ALL = key_named("all")
RAG_ONLY, _RAG_ONLY = key_named("rag-only", models=frozenset({HANDBOOK.id}))
ENCODERS, _ENCODERS = key_named("encoders", models=frozenset({EMBEDDING.id}))
NAMES = {CHAT.id, EMBEDDING.id, *EMBEDDING.aliases, RERANK.id, HANDBOOK.id}

ASKING = [each for each in OPERATIONS if each.body is not None and "model" in each.body.model_fields]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyedServer]:
    async with keyed_server(tmp_path, _NOTHING, _ALL, _RAG_ONLY, _ENCODERS) as server:
        yield server


def code_of(body: dict[str, Any]) -> str:
    error = body["error"]
    return str(error["details"]["error_code"] if "details" in error else error["code"])


def test_every_way_to_a_model_is_looked_at() -> None:
    assert {"/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/rerank", "/v1/score"} <= {
        each.path for each in ASKING
    }


@pytest.mark.parametrize("form", ["bearer", "x-api-key"])
@pytest.mark.parametrize("operation", ASKING, ids=lambda each: each.id)
async def test_what_a_key_may_not_ask_does_not_exist(server: KeyedServer, operation: Operation, form: Form) -> None:
    response = await server.ask(operation.method, operation.path, NOTHING, form=form, json=operation.example)

    assert (response.status_code, code_of(response.json())) == (404, "model_not_found")
    said = response.text.replace(str((operation.example or {}).get("model")), "")
    assert not any(name in said for name in NAMES)


@pytest.mark.parametrize("operation", ASKING, ids=lambda each: each.id)
async def test_another_key_may(server: KeyedServer, operation: Operation) -> None:
    response = await server.ask(operation.method, operation.path, ALL, json=operation.example)

    assert response.status_code != 404


async def test_lists_and_looks_know_of_no_other(server: KeyedServer) -> None:
    models = (await server.ask("GET", "/v1/models", NOTHING)).json()["data"]
    ready = (await server.ask("GET", "/ready", NOTHING)).json()
    looks = [await server.ask("GET", f"/v1/models/{name}", NOTHING) for name in NAMES]
    info = await server.ask("GET", "/info", NOTHING)

    assert (models, ready) == ([], {"status": "ready", "models": {}})
    assert {look.status_code for look in (*looks, info)} == {404}


async def test_the_default_is_the_first_that_may_be_asked(server: KeyedServer) -> None:
    embedded = await server.ask("POST", "/v1/embeddings", ENCODERS, json={"input": "a"})
    ranked = await server.ask("POST", "/v1/rerank", ENCODERS, json={"query": "a", "documents": ["b"]})

    assert embedded.json()["model"] == EMBEDDING.id
    assert (ranked.status_code, code_of(ranked.json())) == (404, "model_not_found")


async def test_a_rag_model_may_be_asked_without_what_it_is_made_of(server: KeyedServer) -> None:
    store = {"name": HANDBOOK.vector_stores[0]}
    await server.ask("POST", "/v1/vector_stores", ALL, json=store)
    hello = {"messages": [{"role": "user", "content": "How long do I knead?"}]}

    asked = [
        await server.ask("POST", "/v1/chat/completions", RAG_ONLY, json={**hello, "model": name})
        for name in (HANDBOOK.id, CHAT.id)
    ]

    assert [each.status_code for each in asked] == [200, 404]
    assert asked[0].json()["model"] == HANDBOOK.id


async def test_vector_stores_work_with_the_models_that_the_operator_gave_them(server: KeyedServer) -> None:
    """Whoever may use them need not be allowed to ask these; but may not name them, either."""
    store = await server.ask("POST", "/v1/vector_stores", NOTHING, json={"name": "mine"})
    path = f"/v1/vector_stores/{store.json()['id']}"
    upload: dict[str, Any] = {"files": {"file": ("a.txt", b"Knead it.")}, "data": {"purpose": "assistants"}}
    file_id = (await server.ask("POST", "/v1/files", NOTHING, **upload)).json()["id"]
    await server.ask("POST", f"{path}/files", NOTHING, json={"file_id": file_id})
    await jobs_done()

    found = await server.ask("POST", f"{path}/search", NOTHING, json={"query": "knead"})
    named = await server.ask("POST", f"{path}/reindex", NOTHING, json={"embedding_model": EMBEDDING.id})

    assert [hit["filename"] for hit in found.json()["data"]] == ["a.txt"]
    assert (named.status_code, code_of(named.json())) == (404, "model_not_found")


async def test_what_is_generated_belongs_to_the_keys_tenant(tmp_path: Path) -> None:
    """By it the engine tells whose prompts may share what was computed; see tests/engine/test_engine_prefixes.py."""
    ada, adas = key_named("ada", tenant="a")
    ben, bens = key_named("ben", tenant="b")
    generating = [each for each in ASKING if each.topic == "generation" and "count" not in each.path]

    async with keyed_server(tmp_path, adas, bens) as server:
        for operation in generating:
            for key in (ada, ben):
                body = {**(operation.example or {}), "user": "b", "safety_identifier": "b"}
                body = {name: value for name, value in body.items() if name in (operation.body or object).model_fields}
                answer = await server.ask(operation.method, operation.path, key, json=body)
                assert answer.status_code == 200, answer.text
                assert server.chat.requests[-1].tenant == ("a" if key == ada else "b")

    assert len(generating) >= 4


async def test_what_one_request_may_ask_sticks_to_no_other(server: KeyedServer) -> None:
    async def names(key: str) -> list[str]:
        return [model["id"] for model in (await server.ask("GET", "/v1/models", key)).json()["data"]]

    together = await asyncio.gather(names(ALL), names(NOTHING), names(ENCODERS), names(ALL))

    assert [len(each) for each in together] == [4, 0, 1, 4]
    assert allowed_models() is None
