"""The real openai SDK, checking every answer against its own types, through the whole life of a vector store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai.types import VectorStore

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import MAX_UPLOAD_MB

pytestmark = pytest.mark.integration

GARDEN = b"# Tomatoes\n\nTomatoes want full sun and water at the roots, never on the leaves.\n"
KITCHEN = b"# Bread\n\nKnead the dough for ten minutes, then let it rise in a warm place.\n"
HARBOUR = b"# Ships\n\nThe lighthouse keeper lit the lamp when fog came over the harbour.\n"
DOCUMENTS = (("garden.md", GARDEN, 1999), ("kitchen.md", KITCHEN, 2005), ("ships.md", HARBOUR, 2020))


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{live_server.url}/v1",
        api_key="any",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def store(sdk: openai.OpenAI) -> Iterator[VectorStore]:
    """Three documents, with attributes."""
    store = sdk.vector_stores.create(name=f"notes {uuid.uuid4().hex}", metadata={"team": "a"})
    for name, content, year in (
        ("garden.md", GARDEN, 1999),
        ("kitchen.md", KITCHEN, 2005),
        ("ships.md", HARBOUR, 2020),
    ):
        file = sdk.files.create(file=(name, content), purpose="assistants")
        attributes: dict[str, str | float | bool] = {"topic": name.partition(".")[0], "year": year}
        added = sdk.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes=attributes)
        assert added.status == "completed", added.last_error
    yield store
    for document in sdk.vector_stores.files.list(store.id):
        sdk.files.delete(document.id)
    sdk.vector_stores.delete(store.id)


def test_a_file_is_uploaded_listed_read_and_deleted(sdk: openai.OpenAI) -> None:
    file = sdk.files.create(
        file=("notes/ü.md", GARDEN), purpose="assistants", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert (file.filename, file.bytes, file.status) == ("notes/ü.md", len(GARDEN), "processed")
    assert file.expires_at == file.created_at + 3600
    assert sdk.files.retrieve(file.id) == file
    assert file.id in [each.id for each in sdk.files.list(purpose="assistants")]
    assert sdk.files.content(file.id).read() == GARDEN
    assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(file.id)


def test_what_is_completed_is_found(sdk: openai.OpenAI, store: VectorStore) -> None:
    hits = list(sdk.vector_stores.search(store.id, query="How long do I knead dough?"))

    best = hits[0]
    assert best.filename == "kitchen.md"
    assert "ten minutes" in best.content[0].text
    assert best.attributes == {"topic": "kitchen", "year": 2005}
    assert all(0 <= hit.score <= 1 for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_filter_keeps_what_it_says(sdk: openai.OpenAI, store: VectorStore) -> None:
    before_2010 = sdk.vector_stores.search(
        store.id,
        query="water",
        filters={
            "type": "and",
            "filters": [
                {"type": "lt", "key": "year", "value": 2010},
                {"type": "nin", "key": "topic", "value": ["kitchen"]},
            ],
        },
        ranking_options={"ranker": "none"},
        max_num_results=5,
    )

    assert {hit.filename for hit in before_2010} == {"garden.md"}


def test_a_batch_is_uploaded_and_waited_for(sdk: openai.OpenAI, store: VectorStore) -> None:
    batch = sdk.vector_stores.file_batches.upload_and_poll(
        store.id,
        files=[("a.txt", b"Owls hunt at night."), ("b.txt", b"Whales sing."), ("c.bin", b"\x00\x01\x02\xff" * 100)],
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}},
    )

    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 2, 1)
    assert sdk.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id) == batch
    documents = list(sdk.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id))
    [failed] = [document for document in documents if document.status == "failed"]
    assert len(documents) == 3
    assert failed.last_error is not None and failed.last_error.code == "unsupported_file"


def test_a_finished_batch_can_be_cancelled_without_harm(sdk: openai.OpenAI, store: VectorStore) -> None:
    file = sdk.files.create(file=("a.txt", b"Owls hunt at night."), purpose="assistants")
    batch = sdk.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id])

    cancelled = sdk.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)

    assert (cancelled.status, cancelled.file_counts.completed) == ("completed", 1)


def test_attributes_are_updated_and_filtered_by_at_once(sdk: openai.OpenAI, store: VectorStore) -> None:
    [ships] = [each for each in sdk.vector_stores.files.list(store.id) if (each.attributes or {})["topic"] == "ships"]

    changed = sdk.vector_stores.files.update(ships.id, vector_store_id=store.id, attributes={"topic": "sea", "x": True})

    assert changed.attributes == {"topic": "sea", "x": True}
    hits = sdk.vector_stores.search(store.id, query="lamp", filters={"type": "eq", "key": "x", "value": True})
    assert [hit.filename for hit in hits] == ["ships.md"]


def test_the_text_of_a_document_can_be_read(sdk: openai.OpenAI, store: VectorStore) -> None:
    file_id = next(iter(sdk.vector_stores.files.list(store.id, order="asc"))).id

    [part] = sdk.vector_stores.files.content(file_id, vector_store_id=store.id)

    assert part.text is not None and "Tomatoes want full sun" in part.text


def test_lists_go_page_by_page(sdk: openai.OpenAI, store: VectorStore) -> None:
    newest_first = [each.id for each in sdk.vector_stores.files.list(store.id, limit=1)]
    oldest_first = [each.id for each in sdk.vector_stores.files.list(store.id, limit=2, order="asc")]
    middle = sdk.vector_stores.files.list(store.id, order="asc", after=oldest_first[0], before=oldest_first[2])

    assert len(oldest_first) == 3 and newest_first == oldest_first[::-1]
    assert [each.id for each in middle.data] == oldest_first[1:2]
    assert list(sdk.vector_stores.files.list(store.id, filter="failed")) == []


def test_a_store_is_updated_and_counts_its_files(sdk: openai.OpenAI, store: VectorStore) -> None:
    changed = sdk.vector_stores.update(
        store.id, name="renamed", expires_after={"anchor": "last_active_at", "days": 3}, metadata={"team": "b"}
    )

    assert (changed.name, changed.metadata, changed.status) == ("renamed", {"team": "b"}, "completed")
    assert changed.expires_at is not None and changed.last_active_at is not None
    assert changed.expires_at - changed.last_active_at == 3 * 86_400
    assert (changed.file_counts.completed, changed.file_counts.total) == (3, 3)
    assert changed.usage_bytes > 0
    assert sdk.vector_stores.retrieve(store.id) == changed
    assert store.id in [each.id for each in sdk.vector_stores.list(limit=100)]


def test_a_removed_document_is_not_found_any_more_and_its_file_stays(sdk: openai.OpenAI, store: VectorStore) -> None:
    [hit] = sdk.vector_stores.search(store.id, query="knead dough", max_num_results=1)

    assert sdk.vector_stores.files.delete(hit.file_id, vector_store_id=store.id).deleted

    after = sdk.vector_stores.search(store.id, query="knead dough")
    assert hit.file_id not in [each.file_id for each in after]
    assert sdk.files.retrieve(hit.file_id).filename == "kitchen.md"


def test_a_deleted_file_leaves_every_store(sdk: openai.OpenAI, store: VectorStore) -> None:
    [hit] = sdk.vector_stores.search(store.id, query="knead dough", max_num_results=1)

    sdk.files.delete(hit.file_id)

    assert hit.file_id not in [each.id for each in sdk.vector_stores.files.list(store.id)]
    assert hit.file_id not in [each.file_id for each in sdk.vector_stores.search(store.id, query="knead dough")]


def test_a_store_made_with_files_is_filled_and_deleted(sdk: openai.OpenAI) -> None:
    file = sdk.files.create(file=("a.txt", b"Owls hunt at night."), purpose="assistants")
    store = sdk.vector_stores.create(file_ids=[file.id])

    done = sdk.vector_stores.files.poll(file.id, vector_store_id=store.id)

    assert (done.status, store.file_counts.total) == ("completed", 1)
    assert sdk.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.vector_stores.retrieve(store.id)
    assert sdk.files.retrieve(file.id).id == file.id


def test_what_does_not_exist_is_a_not_found_error(sdk: openai.OpenAI, store: VectorStore) -> None:
    for ask in (
        lambda: sdk.files.content("file-none"),
        lambda: sdk.files.delete("file-none"),
        lambda: sdk.vector_stores.retrieve("vs_none"),
        lambda: sdk.vector_stores.search("vs_none", query="x"),
        lambda: sdk.vector_stores.files.create("vs_none", file_id="file-none"),
        lambda: sdk.vector_stores.files.create(store.id, file_id="file-none"),
        lambda: sdk.vector_stores.files.retrieve("file-none", vector_store_id=store.id),
        lambda: sdk.vector_stores.file_batches.retrieve("vsfb_none", vector_store_id=store.id),
        lambda: sdk.vector_stores.create(file_ids=["file-none"]),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            ask()
        assert missing.value.code == "not_found"


def test_what_is_wrong_is_a_bad_request_that_names_the_field(sdk: openai.OpenAI, store: VectorStore) -> None:
    with pytest.raises(openai.BadRequestError) as purpose:
        sdk.files.create(file=("a.txt", b"x"), purpose="fun")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(openai.BadRequestError) as wrong_filter:
        sdk.vector_stores.search(store.id, query="x", filters={"type": "eq", "key": "a", "value": [1]})
    with pytest.raises(openai.BadRequestError) as metadata:
        sdk.vector_stores.create(metadata={"k" * 65: "x"})

    assert (purpose.value.param, wrong_filter.value.param, metadata.value.param) == (
        "purpose",
        "filters.value",
        "metadata",
    )


def test_too_large_a_file_is_refused_with_413_and_not_with_a_broken_connection(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.files.create(file=("big.txt", b"x" * ((MAX_UPLOAD_MB + 2) << 20)), purpose="assistants")

    assert (refused.value.status_code, refused.value.code, refused.value.param) == (413, "request_too_large", "file")


def test_a_search_can_be_explained(http: httpx.Client, store: VectorStore) -> None:
    answer = http.post(f"/v1/vector_stores/{store.id}/search", json={"query": "knead dough", "explain": True}).json()

    best = answer["data"][0]["x"]
    assert best["heading"] == "Bread" and best["end"] > best["start"] >= 0
    assert best["ranks"]["dense"] == best["ranks"]["lexical"] == 1
    stages = [stage["name"] for stage in answer["x"]["explanation"]["stages"]]
    assert stages[:2] in (["dense", "lexical"], ["lexical", "dense"]) and "rrf" in stages


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../../tmp/hearth-was-here", "tmp/hearth-was-here"),
        ("..\\boot.ini", "boot.ini"),
        ("CON", "CON"),
        ("x" * 300 + ".txt", "x" * 300 + ".txt"),
        ("invoice\u202etxt.exe", "invoicetxt.exe"),
        ("🙂🙂.txt", "🙂🙂.txt"),
        ("<img src=x onerror=alert(1)>.html", "<img src=x onerror=alert(1)>.html"),
        ("'; DROP TABLE files; --.txt", "'; DROP TABLE files; --.txt"),
    ],
)
def test_a_hostile_file_name_is_only_ever_shown(http: httpx.Client, live_config: Path, sent: str, kept: str) -> None:
    answer = http.post("/v1/files", files={"file": (sent, b"harmless")}, data={"purpose": "assistants"})

    file = answer.raise_for_status().json()
    assert file["filename"] == kept
    assert (live_config.parent / "data" / "files" / file["id"]).read_bytes() == b"harmless"
    assert not Path("/tmp/hearth-was-here").exists()
    content = http.get(f"/v1/files/{file['id']}/content")
    assert content.headers["content-disposition"].startswith("attachment; filename*=utf-8''")
    assert content.headers["x-content-type-options"] == "nosniff"
    assert content.headers["content-type"] == "application/octet-stream"
    http.delete(f"/v1/files/{file['id']}").raise_for_status()
    assert not (live_config.parent / "data" / "files" / file["id"]).exists()


def test_a_name_with_control_characters_is_cleaned(http: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\x00b\x1b[2J\x7f.txt"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n--b--\r\n'
    )

    answer = http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})

    assert answer.raise_for_status().json()["filename"] == "ab[2J.txt"
