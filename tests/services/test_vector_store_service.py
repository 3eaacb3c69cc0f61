"""Vector stores over a real data directory, with a fake parser and fake models."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from server.config.rag_section import RagSettings
from server.errors import Conflict, InvalidRequest, ModelNotFound, ModelUnavailable, ObjectNotFound
from server.models.registry import ModelEntry, ModelRegistry
from server.rag.documents import ChunkingStrategy, StatusCounts, StoreRecord
from server.rag.search import SearchOptions
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels
from server.services.vector_stores import VectorStoreService
from server.storage.data_layout import DataLayout
from server.storage.database import BUSY_TIMEOUT_S
from tests.fakes.library import (
    CHAT,
    EMBEDDING,
    FACTS,
    RERANK,
    SMALL_CHUNKS,
    TENANT,
    Rig,
    fake_embedder,
    jobs_done,
    open_rig,
)
from tests.fakes.models import FakeChatModel, FakeReranker, saying

DAY_S = 86_400


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def service(rig: Rig, clock: Clock) -> VectorStoreService:
    return service_of(rig, rig.models, clock)


def service_of(rig: Rig, models: StoreModels, clock: Clock | None = None) -> VectorStoreService:
    door = LibraryDoor()
    door.open(rig.library)
    return VectorStoreService(door, models, clock=clock or Clock())


async def filled(service: VectorStoreService, rig: Rig, *texts: str) -> StoreRecord:
    """A store with a file for each text."""
    store = await service.create(TENANT, chunking=SMALL_CHUNKS, file_ids=[await rig.add_file(text) for text in texts])
    await jobs_done()
    return await service.get(TENANT, store.id)


async def found(service: VectorStoreService, store_id: str, query: str) -> list[str]:
    outcome = await service.search(TENANT, store_id, [query], SearchOptions())
    return [hit.chunk.text for hit in outcome.hits]


# ---- stores


async def test_a_store_remembers_the_model_that_it_was_made_with(service: VectorStoreService) -> None:
    store = await service.create(TENANT, name="notes", metadata={"a": "b"}, expires_after_days=3)

    assert (store.embedding_model, store.fingerprint, store.dimensions) == (EMBEDDING.id, "f1", 2)
    assert (store.name, store.metadata, store.expires_after_days) == ("notes", {"a": "b"}, 3)
    assert store.chunking == ChunkingStrategy()


async def test_a_store_that_is_made_with_files_is_filled(service: VectorStoreService, rig: Rig) -> None:
    store = await filled(service, rig, "apples", "pears")

    assert store.counts == StatusCounts(completed=2)
    assert "apples" in await found(service, store.id, "apples")


async def test_a_store_that_is_made_with_a_file_that_does_not_exist_is_not_made(service: VectorStoreService) -> None:
    with pytest.raises(ObjectNotFound):
        await service.create(TENANT, file_ids=["file-nowhere"])

    assert await service.list(TENANT) == ([], False)


async def test_a_store_needs_an_embedding_model(rig: Rig) -> None:
    without = service_of(rig, StoreModels(ModelRegistry([]), RagSettings()))

    with pytest.raises(ModelNotFound):
        await without.create(TENANT)


async def test_a_model_that_is_not_loaded_yet_is_loaded_first(rig: Rig, service: VectorStoreService) -> None:
    rig.embedder.facts = None
    rig.embedder.error = ModelUnavailable("loading")

    with pytest.raises(ModelUnavailable):
        await service.create(TENANT)


async def test_an_update_changes_what_it_names(service: VectorStoreService) -> None:
    store = await service.create(TENANT, name="a", metadata={"k": "v"}, expires_after_days=2)

    renamed = await service.update(TENANT, store.id, name="b")
    kept = await service.update(TENANT, store.id, expires_after_days=None)

    assert (renamed.name, renamed.metadata, renamed.expires_after_days) == ("b", {"k": "v"}, 2)
    assert (kept.name, kept.expires_after_days) == ("b", None)


async def test_updates_at_the_same_time_lose_nothing_of_each_other(service: VectorStoreService) -> None:
    store = await service.create(TENANT, name="a", metadata={"k": "v"}, expires_after_days=2)

    await asyncio.gather(
        service.update(TENANT, store.id, name="b"),
        service.update(TENANT, store.id, metadata={}),
        service.update(TENANT, store.id, expires_after_days=7),
    )

    changed = await service.get(TENANT, store.id)
    assert (changed.name, changed.metadata, changed.expires_after_days) == ("b", {}, 7)


async def test_a_deleted_store_is_gone_and_its_files_stay(service: VectorStoreService, rig: Rig) -> None:
    store = await filled(service, rig, "apples")

    await service.delete(TENANT, store.id)

    with pytest.raises(ObjectNotFound):
        await service.get(TENANT, store.id)
    assert len(await rig.documents.file_ids()) == 1


async def test_a_store_that_is_deleted_while_it_is_filled_leaves_no_job(service: VectorStoreService, rig: Rig) -> None:
    rig.parser.gate = asyncio.Event()
    store = await service.create(TENANT, file_ids=[await rig.add_file("a") for _ in range(3)])
    await rig.parser.begun.get()

    await service.delete(TENANT, store.id)
    await jobs_done()

    assert await rig.documents.unfinished() == []
    assert rig.embedder.embedded == []


# ---- search


async def test_a_search_asks_model_and_reranker_and_finds_both_words_and_vectors(
    service: VectorStoreService, rig: Rig
) -> None:
    store = await filled(service, rig, "apples", "pears and plums")

    outcome = await service.search(TENANT, store.id, ["apples"], SearchOptions())

    assert outcome.hits[0].chunk.text == "apples"
    assert 0 < outcome.hits[0].score <= 1
    assert outcome.num_reranked > 0


async def test_the_reranker_can_be_switched_off(rig: Rig) -> None:
    registry = ModelRegistry([ModelEntry(EMBEDDING, rig.embedder), ModelEntry(RERANK, rig.reranker)])
    service = service_of(rig, StoreModels(registry, RagSettings(rerank_model="none")))
    store = await filled(service, rig, "apples")

    outcome = await service.search(TENANT, store.id, ["apples"], SearchOptions())

    assert (outcome.num_reranked, rig.reranker.calls) == (0, [])


async def test_queries_are_rewritten_where_that_is_wanted(rig: Rig) -> None:
    chat = FakeChatModel(steps=saying("apples and pears"))
    registry = ModelRegistry([ModelEntry(EMBEDDING, rig.embedder), ModelEntry(CHAT, chat)])
    service = service_of(rig, StoreModels(registry, RagSettings()))
    store = await filled(service, rig, "apples")

    plain = await service.search(TENANT, store.id, ["some apples"], SearchOptions())
    rewritten = await service.search(TENANT, store.id, ["some apples"], SearchOptions(), rewrites_queries=True)

    assert plain.queries == ("some apples",)
    assert rewritten.queries == ("some apples", "apples and pears")
    assert [request.tenant for request in chat.requests] == [TENANT]


@pytest.mark.parametrize("settings", [RagSettings(), RagSettings(chat_model="none")])
async def test_without_a_chat_model_rewriting_is_refused(rig: Rig, settings: RagSettings) -> None:
    entries = [ModelEntry(EMBEDDING, rig.embedder)]
    entries += [ModelEntry(CHAT, FakeChatModel())] if settings.chat_model else []
    service = service_of(rig, StoreModels(ModelRegistry(entries), settings))
    store = await filled(service, rig, "apples")

    with pytest.raises(InvalidRequest) as refusal:
        await service.search(TENANT, store.id, ["apples"], SearchOptions(), rewrites_queries=True)

    assert (refusal.value.param, refusal.value.code) == ("rewrite_query", "unsupported_parameter")


async def test_several_stores_are_searched_as_one(service: VectorStoreService, rig: Rig) -> None:
    stores = [await filled(service, rig, text) for text in ("apples", "pears")]

    outcome = await service.search_together(TENANT, [store.id for store in stores], ["apples"], SearchOptions())

    assert {hit.chunk.text for hit in outcome.hits} == {"apples", "pears"}


async def test_stores_of_different_models_are_not_searched_together(rig: Rig, service: VectorStoreService) -> None:
    ours = await filled(service, rig, "apples")
    other = await rig.documents.create_store(
        TENANT, embedding_model="other", fingerprint="f1", dimensions=2, chunking=SMALL_CHUNKS
    )

    with pytest.raises(Conflict, match="different models, embedder and other"):
        await service.search_together(TENANT, [ours.id, other.id], ["apples"], SearchOptions())


async def test_a_store_goes_by_id_or_by_a_name_that_no_other_has(service: VectorStoreService, rig: Rig) -> None:
    notes, once, twice = [await service.create(TENANT, name=name) for name in ("notes", "twice", "twice")]

    assert await service.id_of(TENANT, "notes") == await service.id_of(TENANT, notes.id) == notes.id
    with pytest.raises(Conflict, match=f"{once.id} and {twice.id} are all called 'twice'"):
        await service.id_of(TENANT, "twice")
    with pytest.raises(ObjectNotFound, match="id or name 'nobody'"):
        await service.id_of(TENANT, "nobody")
    with pytest.raises(ObjectNotFound):
        await service.id_of("eve", "notes")


async def test_a_store_keeps_its_model_when_another_becomes_the_default(rig: Rig, service: VectorStoreService) -> None:
    store = await filled(service, rig, "apples")
    other = EMBEDDING.model_copy(update={"id": "other"})
    newer = fake_embedder()
    newer.facts = msgspec.structs.replace(FACTS, fingerprint="f2")
    registry = ModelRegistry([ModelEntry(other, newer), ModelEntry(EMBEDDING, rig.embedder)])
    changed = service_of(rig, StoreModels(registry, RagSettings(embedding_model="other", rerank_model="none")))

    assert await found(changed, store.id, "apples") == ["apples"]
    assert newer.embedded == []
    assert (await changed.create(TENANT)).embedding_model == "other"


@pytest.mark.parametrize("is_gone", [False, True])
async def test_without_its_model_a_store_is_neither_searched_nor_filled(
    rig: Rig, service: VectorStoreService, is_gone: bool
) -> None:
    store = await filled(service, rig, "apples")
    file_id = await rig.add_file("pears")
    rig.embedder.facts = msgspec.structs.replace(FACTS, fingerprint="f2")
    known = [ModelEntry(RERANK, FakeReranker())] if is_gone else [ModelEntry(EMBEDDING, rig.embedder)]
    changed = service_of(rig, StoreModels(ModelRegistry(known), RagSettings()))
    remedy = "add it to models.yaml" if is_gone else "change that back"

    with pytest.raises(Conflict, match=f"{remedy}.* `hearth reindex {store.id}`"):
        await found(changed, store.id, "apples")
    with pytest.raises(Conflict, match=remedy):
        await changed.add_file(TENANT, store.id, file_id)
    assert (await changed.get(TENANT, store.id)).counts == StatusCounts(completed=1)


async def test_a_search_keeps_a_store_alive(service: VectorStoreService, rig: Rig, clock: Clock) -> None:
    store = await filled(service, rig, "apples")
    clock.now = store.last_active_at + DAY_S

    await found(service, store.id, "apples")

    assert (await service.get(TENANT, store.id)).last_active_at == store.last_active_at + DAY_S


async def test_a_database_that_nobody_can_write_does_not_keep_a_search_waiting(
    service: VectorStoreService, rig: Rig, clock: Clock, tmp_path: Path
) -> None:
    store = await filled(service, rig, "apples")
    clock.now += DAY_S
    with closing(sqlite3.connect(DataLayout(tmp_path).database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")

        async with asyncio.timeout(BUSY_TIMEOUT_S / 2):
            assert await found(service, store.id, "apples") == ["apples"]


async def test_an_expired_store_is_neither_searched_nor_filled(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT, expires_after_days=1)
    await rig.documents.expire(store.last_active_at + 2 * DAY_S)

    with pytest.raises(Conflict, match="has expired"):
        await found(service, store.id, "apples")
    with pytest.raises(Conflict, match="has expired"):
        await service.add_file(TENANT, store.id, await rig.add_file("a"))


# ---- files in a store


async def test_a_file_that_is_added_is_in_progress_and_then_found(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT, chunking=SMALL_CHUNKS)

    begun = await service.add_file(TENANT, store.id, await rig.add_file("apples"), attributes={"year": 1999})
    await jobs_done()

    done = await service.document(TENANT, store.id, begun.file_id)
    assert (begun.status, done.status, done.attributes) == ("in_progress", "completed", {"year": 1999})
    assert begun.chunking == SMALL_CHUNKS, "as the store has it"
    assert await found(service, store.id, "apples") == ["apples"]
    assert await service.document_text(TENANT, store.id, begun.file_id) == "apples"


async def test_a_file_may_be_cut_in_its_own_way(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT)
    own = ChunkingStrategy(kind="static", max_tokens=3, overlap_tokens=0)

    document = await service.add_file(TENANT, store.id, await rig.add_file("abcdef"), chunking=own)
    await jobs_done()

    assert (await service.document(TENANT, store.id, document.file_id)).num_chunks == 2


async def test_the_same_file_twice_is_one_document(service: VectorStoreService, rig: Rig) -> None:
    rig.parser.gate = asyncio.Event()
    store = await service.create(TENANT, chunking=SMALL_CHUNKS)
    file_id = await rig.add_file("apples")
    await service.add_file(TENANT, store.id, file_id)
    await rig.parser.begun.get()

    await service.add_file(TENANT, store.id, file_id)
    rig.parser.gate.set()
    await jobs_done()

    assert (await service.get(TENANT, store.id)).counts == StatusCounts(completed=1)
    assert await found(service, store.id, "apples") == ["apples"]


async def test_the_same_file_may_be_in_two_stores(service: VectorStoreService, rig: Rig) -> None:
    file_id = await rig.add_file("apples")
    stores = [await service.create(TENANT, file_ids=[file_id]) for _ in range(2)]
    await jobs_done()

    await service.remove_document(TENANT, stores[0].id, file_id)

    assert await found(service, stores[0].id, "apples") == []
    assert await found(service, stores[1].id, "apples") == ["apples"]


async def test_a_removed_file_is_not_found_any_more(service: VectorStoreService, rig: Rig) -> None:
    store = await filled(service, rig, "apples", "pears")
    await found(service, store.id, "apples")

    [[document, *_], _] = await service.documents(TENANT, store.id)
    await service.remove_document(TENANT, store.id, document.file_id)

    assert len(await found(service, store.id, "apples pears")) == 1


async def test_a_file_that_is_removed_on_its_way_in_never_arrives(service: VectorStoreService, rig: Rig) -> None:
    rig.embedder.gate = asyncio.Event()
    store = await service.create(TENANT)
    document = await service.add_file(TENANT, store.id, await rig.add_file("apples"))
    await rig.embedder.begun.wait()

    await service.remove_document(TENANT, store.id, document.file_id)
    rig.embedder.gate.set()
    await jobs_done()

    assert await found(service, store.id, "apples") == []
    with pytest.raises(ObjectNotFound):
        await service.document(TENANT, store.id, document.file_id)


async def test_attributes_can_be_replaced(service: VectorStoreService, rig: Rig) -> None:
    store = await filled(service, rig, "apples")
    [[document], _] = await service.documents(TENANT, store.id)

    changed = await service.set_attributes(TENANT, store.id, document.file_id, {"lang": "en"})

    assert changed.attributes == {"lang": "en"}


# ---- batches


async def test_a_batch_counts_its_own_files(service: VectorStoreService, rig: Rig) -> None:
    store = await filled(service, rig, "apples")
    files = [(await rig.add_file(text), {}, None) for text in ("pears", "  ")]

    begun = await service.create_batch(TENANT, store.id, files)
    await jobs_done()

    done = await service.batch(TENANT, store.id, begun.id)
    assert begun.counts == StatusCounts(in_progress=2)
    assert done.counts == StatusCounts(completed=1, failed=1)
    documents, _ = await service.documents(TENANT, store.id, batch_id=begun.id)
    assert {document.file_id for document in documents} == {file_id for file_id, _, _ in files}


async def test_a_cancelled_batch_stops_at_once_and_keeps_what_is_done(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT, chunking=SMALL_CHUNKS)
    files = [(await rig.add_file(f"file {number}"), {}, None) for number in range(5)]
    rig.parser.gate = asyncio.Event()
    batch = await service.create_batch(TENANT, store.id, files)
    await rig.parser.begun.get()

    cancelled = await service.cancel_batch(TENANT, store.id, batch.id)
    await jobs_done()

    assert cancelled.counts == StatusCounts(cancelled=5)
    assert rig.embedder.embedded == []


async def test_a_batch_is_taken_whole_or_not_at_all(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT)

    with pytest.raises(ObjectNotFound):
        await service.create_batch(TENANT, store.id, [(await rig.add_file("a"), {}, None), ("file-nowhere", {}, None)])

    assert (await service.get(TENANT, store.id)).counts.total == 0


# ---- tenants


async def test_what_is_anothers_does_not_exist(service: VectorStoreService, rig: Rig) -> None:
    store = await service.create(TENANT)
    file_id = await rig.add_file("apples")
    batch = await service.create_batch(TENANT, store.id, [(file_id, {}, None)])
    await jobs_done()
    own = await service.create("eve")

    for attempt in (
        service.get("eve", store.id),
        service.update("eve", store.id, name="mine"),
        service.delete("eve", store.id),
        service.search("eve", store.id, ["apples"], SearchOptions()),
        service.document("eve", store.id, file_id),
        service.documents("eve", store.id),
        service.set_attributes("eve", store.id, file_id, {}),
        service.document_text("eve", store.id, file_id),
        service.remove_document("eve", store.id, file_id),
        service.batch("eve", store.id, batch.id),
        service.cancel_batch("eve", store.id, batch.id),
        service.add_file("eve", store.id, file_id),
        service.add_file("eve", own.id, file_id),
        service.create("eve", file_ids=[file_id]),
    ):
        with pytest.raises(ObjectNotFound):
            await attempt

    assert [each.id for each in (await service.list("eve"))[0]] == [own.id]
    assert (await service.get(TENANT, store.id)).counts == StatusCounts(completed=1)
