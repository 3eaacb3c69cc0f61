"""`/v1/vector_stores` over a service that notes what it is asked: OpenAI's JSON in, OpenAI's JSON out."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest

from server.errors import Conflict, ObjectNotFound, StorageFull
from server.rag.documents import ChunkingStrategy, DocumentStatus, StatusCounts
from server.rag.paging import Page
from tests.api.conftest import Stack
from tests.fakes.stores import BATCH, DOCUMENT, STORE

STORES = "/v1/vector_stores"
FILES = f"{STORES}/vs_1/files"
BATCHES = f"{STORES}/vs_1/file_batches"


def static(max_tokens: int, overlap: int) -> dict[str, Any]:
    return {"type": "static", "static": {"max_chunk_size_tokens": max_tokens, "chunk_overlap_tokens": overlap}}


STATIC = static(100, 50)
A1 = {"a": 1}


# ---- stores


async def test_a_store_is_written_as_openai_writes_it(client: httpx.AsyncClient) -> None:
    body = (await client.get(f"{STORES}/vs_1")).json()

    assert body == {
        "id": "vs_1",
        "object": "vector_store",
        "created_at": 1_700_000_000,
        "name": "notes",
        "description": "",
        "usage_bytes": 10,
        "file_counts": {"in_progress": 0, "completed": 1, "failed": 0, "cancelled": 0, "total": 1},
        "status": "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": 1_700_000_100,
        "metadata": {},
        "x": {
            "embedding_model": "embedder",
            "dimensions": 2,
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
            },
        },
    }


async def test_create_passes_on_what_was_sent(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(
        STORES,
        json={
            "name": "notes",
            "description": "of all",
            "file_ids": ["file-1"],
            "chunking_strategy": STATIC,
            "expires_after": {"anchor": "last_active_at", "days": 7},
            "metadata": {"team": "a"},
        },
    )

    assert stack.stores.last == (
        "create",
        (),
        {
            "name": "notes",
            "description": "of all",
            "file_ids": ["file-1"],
            "chunking": ChunkingStrategy(kind="static", max_tokens=100, overlap_tokens=50),
            "expires_after_days": 7,
            "metadata": {"team": "a"},
        },
    )


async def test_an_empty_object_makes_a_store(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(STORES, json={})

    assert stack.stores.last[2]["name"] == "" and stack.stores.last[2]["chunking"] is None


@pytest.mark.parametrize(
    ("sent", "chunking"),
    [
        ({"type": "auto"}, ChunkingStrategy(kind="auto", max_tokens=800, overlap_tokens=400)),
        (
            {"type": "structural", "max_chunk_size_tokens": 200, "parent_tokens": 800},
            ChunkingStrategy(kind="structural", max_tokens=200, overlap_tokens=0, parent_tokens=800),
        ),
    ],
)
async def test_every_chunking_strategy_is_understood(
    client: httpx.AsyncClient, stack: Stack, sent: dict[str, Any], chunking: ChunkingStrategy
) -> None:
    await client.post(STORES, json={"chunking_strategy": sent})

    assert stack.stores.last[2]["chunking"] == chunking


async def test_structural_chunking_is_told_as_other_with_its_sizes(client: httpx.AsyncClient, stack: Stack) -> None:
    chunking = ChunkingStrategy(kind="structural", max_tokens=200, overlap_tokens=0, parent_tokens=800)
    stack.stores.record = dataclasses.replace(DOCUMENT, chunking=chunking)

    body = (await client.get(f"{FILES}/file-1")).json()

    assert body["chunking_strategy"] == {
        "type": "other",
        "structural": {
            "max_chunk_size_tokens": 200,
            "chunk_overlap_tokens": 0,
            "parent_tokens": 800,
            "context": False,
        },
    }


@pytest.mark.parametrize(
    ("counts", "is_expired", "status"),
    [
        (StatusCounts(in_progress=1, failed=1), False, "in_progress"),
        (StatusCounts(failed=1), False, "completed"),
        (StatusCounts(completed=1), True, "expired"),
    ],
)
async def test_the_status_of_a_store(
    client: httpx.AsyncClient, stack: Stack, counts: StatusCounts, is_expired: bool, status: str
) -> None:
    stack.stores.store = dataclasses.replace(STORE, counts=counts, is_expired=is_expired)

    assert (await client.get(f"{STORES}/vs_1")).json()["status"] == status


async def test_expiry_is_told_in_days_and_as_a_time(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.store = dataclasses.replace(STORE, expires_after_days=2)

    body = (await client.get(f"{STORES}/vs_1")).json()

    assert body["expires_after"] == {"anchor": "last_active_at", "days": 2}
    assert body["expires_at"] == 1_700_000_100 + 2 * 86_400


async def test_an_update_changes_what_was_sent_and_null_empties(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(f"{STORES}/vs_1", json={"name": "new"})
    await client.post(f"{STORES}/vs_1", json={"metadata": None, "expires_after": None})

    assert [call[2] for call in stack.stores.calls] == [
        {"name": "new"},
        {"metadata": {}, "expires_after_days": None},
    ]


async def test_stores_are_listed_by_cursor(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.has_more = True

    body = (await client.get(f"{STORES}?limit=1&order=asc&after=vs_0&before=vs_9")).json()

    assert (body["first_id"], body["last_id"], body["has_more"]) == ("vs_1", "vs_1", True)
    assert stack.stores.last[1] == (Page(limit=1, order="asc", after="vs_0", before="vs_9"),)


async def test_delete_confirms_the_id(client: httpx.AsyncClient) -> None:
    body = (await client.delete(f"{STORES}/vs_1")).json()

    assert body == {"id": "vs_1", "object": "vector_store.deleted", "deleted": True}


# ---- files in a store


async def test_a_document_is_written_as_openai_writes_it(client: httpx.AsyncClient) -> None:
    body = (await client.get(f"{FILES}/file-1")).json()

    assert body == {
        "id": "file-1",
        "object": "vector_store.file",
        "created_at": 1_700_000_000,
        "usage_bytes": 10,
        "vector_store_id": "vs_1",
        "status": "completed",
        "last_error": None,
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
        },
        "attributes": {"year": 1999},
        "x": {
            "filename": "a.txt",
            "batch_id": None,
            "num_chunks": 1,
            "num_chunks_done": 1,
            "eta_s": None,
            "waiting_for": None,
        },
    }


async def test_a_failure_is_told_with_its_code(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.record = dataclasses.replace(DOCUMENT, status="failed", failure=("invalid_file", "it is encrypted"))

    body = (await client.get(f"{FILES}/file-1")).json()

    assert (body["status"], body["last_error"]) == ("failed", {"code": "invalid_file", "message": "it is encrypted"})


@pytest.mark.parametrize(("status", "hint"), [("in_progress", "200"), ("completed", None)])
async def test_the_sdk_is_told_when_to_ask_again(
    client: httpx.AsyncClient, stack: Stack, status: DocumentStatus, hint: str | None
) -> None:
    stack.stores.record = dataclasses.replace(DOCUMENT, status=status)

    assert (await client.get(f"{FILES}/file-1")).headers.get("openai-poll-after-ms") == hint


async def test_a_file_is_added_with_its_attributes(client: httpx.AsyncClient, stack: Stack) -> None:
    attributes = {"lang": "de", "year": 1999, "share": 0.5, "draft": False}

    await client.post(FILES, json={"file_id": "file-1", "attributes": attributes})

    assert stack.stores.last == ("add_file", ("vs_1", "file-1"), {"attributes": attributes, "chunking": None})
    assert type(stack.stores.last[2]["attributes"]["year"]) is int


async def test_documents_are_listed_by_status(client: httpx.AsyncClient, stack: Stack) -> None:
    body = (await client.get(f"{FILES}?filter=failed")).json()

    assert [each["id"] for each in body["data"]] == ["file-1"]
    assert stack.stores.last[2] == {"status": "failed", "batch_id": None, "page": Page()}


@pytest.mark.parametrize(("sent", "kept"), [({"a": 1}, {"a": 1}), (None, {})])
async def test_attributes_are_replaced(
    client: httpx.AsyncClient, stack: Stack, sent: dict[str, Any] | None, kept: dict[str, Any]
) -> None:
    await client.post(f"{FILES}/file-1", json={"attributes": sent})

    assert stack.stores.last == ("set_attributes", ("vs_1", "file-1", kept), {})


async def test_the_text_of_a_document_is_a_page(client: httpx.AsyncClient) -> None:
    body = (await client.get(f"{FILES}/file-1/content")).json()

    assert body == {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": "some text"}],
        "has_more": False,
        "next_page": None,
    }


async def test_removing_a_document_confirms_the_id(client: httpx.AsyncClient) -> None:
    body = (await client.delete(f"{FILES}/file-1")).json()

    assert body == {"id": "file-1", "object": "vector_store.file.deleted", "deleted": True}


# ---- batches


@pytest.mark.parametrize(
    ("sent", "files"),
    [
        (
            {"file_ids": ["file-1", "file-2"], "attributes": {"a": 1}},
            [("file-1", {"a": 1}, None), ("file-2", {"a": 1}, None)],
        ),
        (
            {
                "files": [
                    {"file_id": "file-1", "attributes": {"a": 1}},
                    {"file_id": "file-2", "chunking_strategy": STATIC},
                ]
            },
            [
                ("file-1", {"a": 1}, None),
                ("file-2", {}, ChunkingStrategy(kind="static", max_tokens=100, overlap_tokens=50)),
            ],
        ),
    ],
)
async def test_a_batch_says_what_holds_for_all_or_for_each(
    client: httpx.AsyncClient, stack: Stack, sent: dict[str, Any], files: list[Any]
) -> None:
    body = (await client.post(BATCHES, json=sent)).json()

    assert stack.stores.last == ("create_batch", ("vs_1", files), {})
    assert body == {
        "id": "vsfb_1",
        "object": "vector_store.files_batch",
        "created_at": 1_700_000_000,
        "vector_store_id": "vs_1",
        "status": "completed",
        "file_counts": {"in_progress": 0, "completed": 1, "failed": 0, "cancelled": 0, "total": 1},
    }


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        (StatusCounts(in_progress=1, cancelled=1), "in_progress"),
        (StatusCounts(completed=1, cancelled=1), "cancelled"),
        (StatusCounts(completed=1, failed=1), "completed"),
        (StatusCounts(failed=2), "failed"),
        (StatusCounts(), "completed"),
    ],
)
async def test_the_status_of_a_batch(
    client: httpx.AsyncClient, stack: Stack, counts: StatusCounts, status: str
) -> None:
    stack.stores.batch_record = dataclasses.replace(BATCH, counts=counts)

    assert (await client.get(f"{BATCHES}/vsfb_1")).json()["status"] == status


async def test_a_batch_is_cancelled_and_its_files_listed(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(f"{BATCHES}/vsfb_1/cancel")
    await client.get(f"{BATCHES}/vsfb_1/files?limit=5")

    assert stack.stores.calls[0] == ("cancel_batch", ("vs_1", "vsfb_1"), {})
    assert stack.stores.calls[1][2] == {"status": None, "batch_id": "vsfb_1", "page": Page(limit=5)}


# ---- refusals


TOO_MANY = {str(n): "x" for n in range(17)}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (STORES, {"nmae": "x"}, "nmae"),
        (STORES, {"name": "x" * 257}, "name"),
        (STORES, {"metadata": TOO_MANY}, "metadata"),
        (STORES, {"metadata": {"a": 1}}, "metadata"),
        (STORES, {"metadata": {"k" * 65: "x"}}, "metadata"),
        (STORES, {"metadata": {"a": "x" * 513}}, "metadata"),
        (STORES, {"metadata": []}, "metadata"),
        (STORES, {"file_ids": ["x"] * 2001}, "file_ids"),
        (STORES, {"file_ids": "file-1"}, "file_ids"),
        (STORES, {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
        (STORES, {"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
        (STORES, {"expires_after": {"anchor": "last_active_at"}}, "expires_after.days"),
        (STORES, {"chunking_strategy": {"type": "magic"}}, "chunking_strategy.type"),
        (STORES, {"chunking_strategy": {}}, "chunking_strategy.type"),
        (STORES, {"chunking_strategy": {"type": "static"}}, "chunking_strategy.static"),
        (
            STORES,
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 99, "chunk_overlap_tokens": 0},
                }
            },
            "chunking_strategy.static.max_chunk_size_tokens",
        ),
        (
            STORES,
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51},
                }
            },
            "chunking_strategy.static.chunk_overlap_tokens",
        ),
        (
            STORES,
            {"chunking_strategy": {"type": "structural", "max_chunk_size_tokens": 200, "parent_tokens": 100}},
            "chunking_strategy.parent_tokens",
        ),
        (f"{STORES}/vs_1", {"description": "x"}, "description"),
        (FILES, {}, "file_id"),
        (FILES, {"file_id": "f", "attributes": {"a": []}}, "attributes"),
        (FILES, {"file_id": "f", "attributes": {"a": None}}, "attributes"),
        (FILES, {"file_id": "f", "attributes": TOO_MANY}, "attributes"),
        (FILES, {"file_id": "f", "attributes": {"a": "b\0c"}}, "attributes"),
        (FILES, {"file_id": "f", "attributes": {"a\0b": 1}}, "attributes"),
        (f"{FILES}/file-1", {}, "attributes"),
        (f"{FILES}/file-1", {"attributes": {"a": "x" * 513}}, "attributes"),
        (BATCHES, {}, "file_ids"),
        (BATCHES, {"file_ids": []}, "file_ids"),
        (BATCHES, {"file_ids": ["a"], "files": [{"file_id": "a"}]}, "file_ids"),
        (BATCHES, {"files": [{"file_id": "a"}], "attributes": {}}, "attributes"),
        (BATCHES, {"files": [{"file_id": "a", "attributes": {"x": {}}}]}, "files[0].attributes"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, stack: Stack, path: str, body: dict[str, Any], param: str | None
) -> None:
    response = await client.post(path, json=body)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert len(error["message"]) > 10
    assert stack.stores.calls == []


@pytest.mark.parametrize("query", ["limit=101", "order=newest", "filter=done", "cursor=x"])
async def test_a_wrong_query_is_refused_by_name(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"{FILES}?{query}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ObjectNotFound("there is no vector store 'vs_1'"), 404, "not_found"),
        (Conflict("the store has expired"), 409, "conflict"),
        (StorageFull("the disk is full"), 507, "storage_full"),
    ],
)
async def test_errors_of_the_service_have_their_status(
    client: httpx.AsyncClient, stack: Stack, error: Any, status: int, code: str
) -> None:
    stack.stores.error = error

    response = await client.post(FILES, json={"file_id": "file-1"})

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
