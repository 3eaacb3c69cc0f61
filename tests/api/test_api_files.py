"""`/v1/files` over a service that keeps contents in memory."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import httpx
import pytest

from server.rag.paging import Page
from tests.api.conftest import Stack
from tests.fakes.stores import FILE

PURPOSE = {"purpose": "assistants"}


async def test_an_upload_is_answered_with_openais_file_object(client: httpx.AsyncClient, stack: Stack) -> None:
    response = await client.post("/v1/files", files={"file": ("dir/ü.txt", b"hello")}, data=PURPOSE)

    assert response.json() == {
        "id": "file-2",
        "object": "file",
        "bytes": 5,
        "created_at": 1_700_000_000,
        "expires_at": None,
        "filename": "dir/ü.txt",
        "purpose": "assistants",
        "status": "processed",
        "status_details": None,
        "x": {"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
    }
    assert stack.files.contents == [b"hello"]


async def test_expires_after_counts_from_creation(client: httpx.AsyncClient) -> None:
    data = {**PURPOSE, "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}

    response = await client.post("/v1/files", files={"file": ("a", b"hello")}, data=data)

    assert response.json()["expires_at"] == 1_700_003_600


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        ({"data": PURPOSE, "files": {"file": ("a", b"x" * (3 << 20))}}, (413, "request_too_large", "file")),
        ({"data": PURPOSE, "files": {"other": ("a", b"x")}}, (400, "invalid_value", "other")),
        ({"data": {"purpose": "fun"}, "files": {"file": ("a", b"x")}}, (400, "invalid_value", "purpose")),
        ({"files": {"file": ("a", b"x")}}, (400, "missing_required_parameter", "purpose")),
        ({"json": PURPOSE}, (415, "unsupported_media_type", None)),
    ],
)
async def test_a_wrong_upload_is_refused_by_name_and_leaves_nothing(
    client: httpx.AsyncClient, stack: Stack, request_: dict[str, Any], refusal: tuple[int, str, str | None]
) -> None:
    response = await client.post("/v1/files", **request_)

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == refusal
    assert stack.files.contents == []


async def test_a_large_file_is_never_held_whole(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post("/v1/files", files={"file": ("a", io.BytesIO(b"x" * 1_000_000))}, data=PURPOSE)

    assert len(stack.files.contents[0]) == 1_000_000
    assert stack.files.largest_chunk <= 1 << 17


async def test_files_are_listed_by_cursor_and_purpose(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.files.records = [FILE, dataclasses.replace(FILE, id="file-9")]
    stack.files.has_more = True

    body = (await client.get("/v1/files?purpose=assistants&limit=2&order=asc&after=file-0")).json()

    assert {name: body[name] for name in ("object", "first_id", "last_id", "has_more")} == {
        "object": "list",
        "first_id": "file-1",
        "last_id": "file-9",
        "has_more": True,
    }
    assert stack.files.pages == [("assistants", Page(limit=2, order="asc", after="file-0"))]


async def test_an_empty_list_has_no_first_and_no_last(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.files.records = []

    body = (await client.get("/v1/files")).json()

    assert body == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("page=2", "page")]
)
async def test_a_wrong_query_is_refused_by_name(client: httpx.AsyncClient, query: str, param: str) -> None:
    response = await client.get(f"/v1/files?{query}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_content_is_an_attachment_that_no_browser_shows(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.files.records = [dataclasses.replace(FILE, filename="a/<img onerror>.html")]
    (stack.files.folder / "file-1").write_bytes(b"<script>")

    response = await client.get("/v1/files/file-1/content", headers={"range": "bytes=1-2"})

    assert (response.status_code, response.content) == (200, b"<script>")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''%3Cimg%20onerror%3E.html"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_content_that_was_deleted_meanwhile_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/files/file-1/content")  # there is a record, and nothing on the disk

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


async def test_delete_confirms_the_id(client: httpx.AsyncClient, stack: Stack) -> None:
    body = (await client.delete("/v1/files/file-1")).json()

    assert body == {"id": "file-1", "object": "file", "deleted": True}
    assert stack.files.deleted == ["file-1"]


async def test_a_file_that_is_in_use_is_deleted_only_by_who_wants_it_all_the_same(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    stack.files.used = {"file-1"}

    refused = await client.delete("/v1/files/file-1?if_unused=true")
    assert (refused.status_code, refused.json()["error"]["code"], stack.files.deleted) == (409, "conflict", [])

    await client.delete("/v1/files/file-1?if_unused=false")
    assert stack.files.deleted == ["file-1"]


@pytest.mark.parametrize("query", ["if_unused=maybe", "if_unused=1", "if_used=true"])
async def test_a_wrong_query_deletes_nothing(client: httpx.AsyncClient, stack: Stack, query: str) -> None:
    response = await client.delete(f"/v1/files/file-1?{query}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, query.partition("=")[0])
    assert stack.files.deleted == []


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/content"), ("DELETE", "")])
async def test_an_unknown_file_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, f"/v1/files/file-0{path}")

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
