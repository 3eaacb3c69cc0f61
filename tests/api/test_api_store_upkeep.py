"""Reindexing, exporting and importing vector stores over HTTP, on a real data directory with fake models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.application import build_api
from server.config.server_section import Limits
from server.errors import ObjectNotFound
from server.models.registry import ModelEntry, ModelRegistry
from server.rag.transfer_store import TransferStore
from server.services import build_services
from server.services.library import LibraryDoor
from tests.fakes.library import EMBEDDING, Rig, jobs_done, open_rig
from tests.fakes.wide_embedder import WIDE, WideEmbedder

STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}


@dataclass
class Served:
    client: httpx.AsyncClient
    rig: Rig
    wide: WideEmbedder

    async def filled_store(self, text: str = "apples and pears") -> str:
        form: dict[str, Any] = {"data": {"purpose": "assistants"}, "files": {"file": ("a/ü.txt", text.encode())}}
        file = (await self.client.post("/v1/files", **form)).json()
        body = {"name": "notes", "file_ids": [file["id"]], "chunking_strategy": STATIC}
        store = (await self.client.post("/v1/vector_stores", json=body)).json()
        await jobs_done()
        return str(store["id"])

    async def search(self, store_id: str) -> httpx.Response:
        return await self.client.post(f"/v1/vector_stores/{store_id}/search", json={"query": "apples"})


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    wide = WideEmbedder()
    async with open_rig(tmp_path, others=[ModelEntry(WIDE, wide)]) as rig:
        registry = ModelRegistry([ModelEntry(EMBEDDING, rig.embedder), ModelEntry(WIDE, wide)])
        door, limits = LibraryDoor(), Limits(max_body_mb=1, max_upload_mb=1, max_import_mb=1)
        door.open(rig.library)
        services = build_services(registry, limits, started_at_s=0, version="1.2.3", door=door)
        transport = httpx.ASGITransport(build_api(services, limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Served(client, rig, wide)


# ---- reindex


async def test_a_reindex_is_begun_watched_and_done(served: Served) -> None:
    path = f"/v1/vector_stores/{await served.filled_store()}"
    gate = served.wide.gate = asyncio.Event()

    begun = (await served.client.post(f"{path}/reindex", json={"embedding_model": "wide"})).json()
    gate.set()
    await jobs_done()
    done = (await served.client.get(f"{path}/reindex")).json()

    assert (begun["object"], begun["status"], begun["num_chunks_done"]) == ("vector_store.reindex", "in_progress", 0)
    assert done == {
        **begun,
        "status": "completed",
        "num_chunks": 1,
        "num_chunks_done": 1,
        "dimensions": 3,
        "embedding_model": "wide",
        "last_error": None,
    }
    assert (await served.client.get(path)).json()["x"]["embedding_model"] == "wide"


async def test_a_reindex_is_cancelled(served: Served) -> None:
    path = f"/v1/vector_stores/{await served.filled_store()}/reindex"
    served.wide.gate = asyncio.Event()
    await served.client.post(path, json={"embedding_model": "wide"})

    cancelled = await served.client.post(f"{path}/cancel")
    await jobs_done()

    assert cancelled.json()["status"] == (await served.client.get(path)).json()["status"] == "cancelled"


async def test_the_model_of_new_stores_is_the_default_and_null_means_it(served: Served) -> None:
    path = f"/v1/vector_stores/{await served.filled_store()}/reindex"

    for body in ({}, {"embedding_model": None}):
        assert (await served.client.post(path, json=body)).json()["embedding_model"] == "embedder"


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("POST", "reindex", {"embedding_model": "nobody"}, (404, "model_not_found")),
        ("POST", "reindex", {"model": "wide"}, (400, "unknown_parameter")),
        ("GET", "reindex", None, (404, "not_found")),
        ("POST", "reindex/cancel", None, (404, "not_found")),
    ],
)
async def test_what_cannot_be_reindexed_is_refused(
    served: Served, method: str, path: str, body: object, refusal: tuple[int, str]
) -> None:
    store_id = await served.filled_store()

    response = await served.client.request(method, f"/v1/vector_stores/{store_id}/{path}", json=body)

    assert (response.status_code, response.json()["error"]["code"]) == refusal


# ---- export and import


async def test_a_store_is_exported_and_imported(served: Served) -> None:
    store_id = await served.filled_store()

    exported = await served.client.get(f"/v1/vector_stores/{store_id}/export")
    imported = await served.client.post(
        "/v1/vector_stores/import", files={"file": ("notes.hearth", exported.content)}, data={"name": "copy"}
    )

    assert exported.headers["content-disposition"] == "attachment; filename*=utf-8''notes.hearth"
    assert exported.headers["x-content-type-options"] == "nosniff"
    assert exported.headers["content-type"] == "application/octet-stream"
    body = imported.json()
    assert (body["object"], body["name"], body["file_counts"]["completed"]) == ("vector_store", "copy", 1)
    hits, original = [(await served.search(each)).json()["data"] for each in (body["id"], store_id)]
    assert [hit["content"] for hit in hits] == [hit["content"] for hit in original] != []
    assert hits[0]["filename"] == "a/ü.txt"
    assert hits[0]["file_id"] != original[0]["file_id"]


async def test_an_imported_store_keeps_its_name(served: Served) -> None:
    content = (await served.client.get(f"/v1/vector_stores/{await served.filled_store()}/export")).content

    imported = await served.client.post("/v1/vector_stores/import", files={"file": ("x", content)})

    assert imported.json()["name"] == "notes"


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        ({"files": {"file": ("a", b"PK\x03\x04")}}, (400, "invalid_value", "file")),
        ({"files": {"file": ("a", b"")}}, (400, "invalid_value", "file")),
        ({"files": {"file": ("a", bytes(1 << 21))}}, (413, "request_too_large", "file")),
        ({"files": {"file": ("a", b"x")}, "data": {"name": "x" * 257}}, (400, "invalid_value", "name")),
        ({"files": {"file": ("a", b"x")}, "data": {"tenant": "eve"}}, (400, "unknown_parameter", "tenant")),
        ({"json": {"name": "x"}}, (415, "unsupported_media_type", None)),
    ],
)
async def test_what_is_no_exported_store_is_refused_and_leaves_nothing(
    served: Served, tmp_path: Path, request_: dict[str, Any], refusal: tuple[int, str, str | None]
) -> None:
    response = await served.client.post("/v1/vector_stores/import", **request_)

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == refusal
    assert (await served.client.get("/v1/vector_stores")).json()["data"] == []
    assert list((tmp_path / "imports").iterdir()) == []


async def test_only_what_is_there_is_exported(served: Served) -> None:
    response = await served.client.get("/v1/vector_stores/vs_nowhere/export")

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


async def test_an_export_that_breaks_off_is_noticed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    store_id = await served.filled_store()

    async def say_that_it_is_gone(*_: object) -> None:
        raise ObjectNotFound("no vector store")

    monkeypatch.setattr(TransferStore, "read", say_that_it_is_gone)

    with pytest.raises(RuntimeError):  # whereupon uvicorn cuts the connection
        await served.client.get(f"/v1/vector_stores/{store_id}/export")
