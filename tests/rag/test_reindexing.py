"""Stores that get another model's vectors while they are searched and filled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from server.asker import Asker, asking, current_asker
from server.config.rag_section import RagSettings
from server.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    ObjectNotFound,
    Reindexed,
    WorkerCrashed,
)
from server.models.registry import ModelEntry, ModelRegistry
from server.rag.documents import StoreRecord
from server.rag.parsing import ParseFailed
from server.rag.rows.editions import Swapped
from server.rag.search import SearchOptions
from server.services.library import LibraryDoor
from server.services.reindexing import ReindexService
from server.services.store_models import StoreModels
from server.services.vector_stores import VectorStoreService
from tests.fakes.library import EMBEDDING, FACTS, SMALL_CHUNKS, TENANT, Rig, jobs_done, open_rig
from tests.fakes.wide_embedder import WIDE, WIDE_FACTS, WideEmbedder, wide_vector


class Stores:
    """Services over a rig that has two embedding models; stores are made with the first."""

    def __init__(self, rig: Rig, wide: WideEmbedder, models: StoreModels | None = None) -> None:
        self.rig, self.wide = rig, wide
        door = LibraryDoor()
        door.open(rig.library)
        self.stores = VectorStoreService(door, models or rig.models)
        self.reindexes = ReindexService(door, models or rig.models)

    async def filled(self, *texts: str) -> StoreRecord:
        file_ids = [await self.rig.add_file(text) for text in texts]
        store = await self.stores.create(TENANT, chunking=SMALL_CHUNKS, file_ids=file_ids)
        await jobs_done()
        return store

    async def found(self, store: StoreRecord, query: str) -> list[str]:
        outcome = await self.stores.search(TENANT, store.id, [query], SearchOptions())
        return sorted(hit.chunk.text for hit in outcome.hits)

    async def begin(self, store: StoreRecord, model: str = "wide") -> None:
        await self.reindexes.begin(TENANT, store.id, embedding_model=model)

    async def add(self, store: StoreRecord, text: str) -> str:
        document = await self.stores.add_file(TENANT, store.id, await self.rig.add_file(text))
        return document.file_id

    async def texts_with_wide_vectors(self, store: StoreRecord) -> list[str]:
        """The texts of all chunks, each of which must have its vector of the second model."""
        documents = self.rig.documents
        _, ids, vectors = await documents.vectors(store.id)
        texts = [chunk.text for chunk in await documents.chunks(ids)]
        np.testing.assert_array_equal(vectors, np.array([wide_vector(text) for text in texts]).astype(np.float16))
        return texts


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    wide = WideEmbedder()
    async with open_rig(tmp_path, others=[ModelEntry(WIDE, wide)]) as rig:
        yield Stores(rig, wide)


async def test_a_store_gets_another_models_vectors(stores: Stores) -> None:
    store = await stores.filled("apples", "pears and plums")
    await stores.found(store, "apples")  # there is an index in memory now

    await stores.begin(store)
    await jobs_done()

    seen, reindex = await stores.stores.get(TENANT, store.id), await stores.reindexes.get(TENANT, store.id)
    assert (seen.embedding_model, seen.fingerprint, seen.dimensions) == ("wide", WIDE_FACTS.fingerprint, 3)
    assert (reindex.status, reindex.num_chunks, reindex.num_chunks_done) == ("completed", 3, 3)
    assert sorted(await stores.texts_with_wide_vectors(store)) == ["apples", "pears and", "plums"]
    assert await stores.found(store, "apples") == ["apples", "pears and", "plums"]
    assert stores.wide.calls[-1] == ["apples"]
    assert {str(each["prompt"]) for each in stores.wide.options[:-1]} == {"doc: "}
    assert {str(each["lane"]) for each in stores.wide.options[:-1]} == {"bulk"}


async def test_columns_of_tables_are_embedded_anew_too(stores: Stores) -> None:
    stores.rig.parser.kind = "table"
    store = await stores.filled("Tea | Cost\nmate | low")
    embedded = list(stores.rig.embedder.embedded)

    await stores.begin(store)
    await jobs_done()

    assert stores.wide.embedded == embedded == ["Tea | Cost", "Tea | Cost\nmate | lo", "Tea | Cost\nw"]


async def test_usage_counts_the_new_vectors(stores: Stores) -> None:
    store = await stores.filled("apples")

    await stores.begin(store)
    await jobs_done()

    assert (await stores.stores.get(TENANT, store.id)).usage_bytes == len("apples") + 3 * 2


async def test_usage_counts_the_new_vectors_of_what_could_not_be_read_again(stores: Stores) -> None:
    store = await stores.filled("apples")
    [document], _ = await stores.stores.documents(TENANT, store.id)
    stores.rig.parser.errors.append(ParseFailed("invalid_file", "broken"))
    await stores.stores.add_file(TENANT, store.id, document.file_id)
    await jobs_done()

    await stores.begin(store)
    await jobs_done()

    assert (await stores.stores.get(TENANT, store.id)).usage_bytes == len("apples") + 3 * 2


async def test_the_old_index_serves_meanwhile(stores: Stores) -> None:
    store = await stores.filled("apples")
    stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()

    assert await stores.found(store, "apples") == ["apples"]
    progress = await stores.reindexes.get(TENANT, store.id)
    assert (progress.status, progress.num_chunks_done) == ("in_progress", 0)

    stores.wide.gate.set()
    await jobs_done()
    assert await stores.found(store, "apples") == ["apples"]


async def test_what_comes_and_goes_meanwhile_is_right_in_the_end(stores: Stores) -> None:
    store = await stores.filled("apples", "pears", "plums")
    [old, *_], _ = await stores.stores.documents(TENANT, store.id)
    stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()

    await stores.stores.remove_document(TENANT, store.id, old.file_id)
    await stores.add(store, "cherries")
    await jobs_done(("ingestion of",))
    assert "cherries" in await stores.found(store, "cherries")
    stores.wide.gate.set()
    await jobs_done()

    assert sorted(await stores.texts_with_wide_vectors(store)) == ["apples", "cherries", "pears"]
    assert await stores.found(store, "cherries") == ["apples", "cherries", "pears"]


async def test_a_document_that_is_embedded_while_the_store_is_swapped_begins_anew(stores: Stores) -> None:
    store = await stores.filled("apples")
    stores.rig.embedder.gate = asyncio.Event()
    stores.rig.embedder.begun.clear()
    file_id = await stores.add(store, "a much longer text than one chunk may have")
    await stores.rig.embedder.begun.wait()

    await stores.begin(store)
    await jobs_done(("reindex of",))
    stores.rig.embedder.gate.set()
    await jobs_done()

    assert (await stores.stores.document(TENANT, store.id, file_id)).status == "completed"
    assert len(await stores.texts_with_wide_vectors(store)) == 6


async def test_jobs_wait_while_the_last_chunks_are_embedded(stores: Stores) -> None:
    """Else a store that is always being filled would never be swapped."""
    store = await stores.filled("apples")
    ingestion = stores.rig.library.ingestion

    with ingestion.held(store.id):
        held = await stores.add(store, "pears")
        other = await stores.filled("plums")
        assert (await stores.stores.document(TENANT, store.id, held)).status == "in_progress"
        assert (await stores.stores.get(TENANT, other.id)).counts.completed == 1
    await jobs_done()

    assert (await stores.stores.document(TENANT, store.id, held)).status == "completed"


async def test_jobs_go_on_while_the_last_chunks_wait_for_their_model(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.filled("apples")
    gate = stores.rig.embedder.gate = asyncio.Event()
    stores.rig.embedder.begun.clear()
    late = await stores.add(store, "pears")
    await stores.rig.embedder.begun.wait()
    reindexes = stores.rig.library.reindexes
    swap, is_away = reindexes.swap, asyncio.Event()

    async def swap_too_late(edition: int) -> Swapped | None:
        monkeypatch.setattr(reindexes, "swap", swap)
        gate.set()
        await jobs_done((f"ingestion of {late}",))
        stores.wide.error = ModelUnavailable("the model is away")
        stores.wide.begun.clear()
        is_away.set()
        return await swap(edition)

    monkeypatch.setattr(reindexes, "swap", swap_too_late)
    await stores.begin(store)
    await is_away.wait()
    await stores.wide.begun.wait()

    added = await stores.add(store, "plums")
    await jobs_done(("ingestion of",))

    assert (await stores.stores.document(TENANT, store.id, added)).status == "completed"
    assert (await stores.reindexes.get(TENANT, store.id)).waiting_for == "the model is away"
    stores.wide.error = None
    await jobs_done()
    assert sorted(await stores.texts_with_wide_vectors(store)) == ["apples", "pears", "plums"]


async def test_one_that_waits_for_its_model_keeps_those_waiting_that_want_the_same(tmp_path: Path) -> None:
    away, here = WideEmbedder(error=ModelUnavailable("the model is away")), WideEmbedder()
    here.facts = msgspec.structs.replace(WIDE_FACTS, fingerprint="here1")
    other = WIDE.model_copy(update={"id": "here"})
    async with open_rig(tmp_path, others=[ModelEntry(WIDE, away), ModelEntry(other, here)]) as rig:
        stores = Stores(rig, away)
        first, same, third = [await stores.filled("apples") for _ in range(3)]
        await stores.begin(first)
        await stores.begin(same)
        await stores.begin(third, "here")
        await jobs_done((f"reindex of {third.id}",))

        assert (await stores.reindexes.get(TENANT, third.id)).status == "completed"
        waiting = await stores.reindexes.get(TENANT, same.id)
        assert (waiting.status, waiting.waiting_for) == ("in_progress", "the model is away")
        away.error = None
        await jobs_done()
        assert (await stores.reindexes.get(TENANT, same.id)).status == "completed"


async def test_one_whose_turn_has_not_come_says_so_and_not_whose_it_is(stores: Stores) -> None:
    first, second = await stores.filled("apples"), await stores.filled("pears")
    gate = stores.wide.gate = asyncio.Event()
    await stores.begin(first)
    await stores.wide.begun.wait()

    await stores.begin(second)

    waiting = await stores.reindexes.get(TENANT, second.id)
    assert waiting.waiting_for == "another vector store is embedded with model 'wide' first"
    gate.set()
    await jobs_done()


async def test_a_model_that_is_still_loading_is_what_is_waited_for(stores: Stores) -> None:
    store = await stores.filled("apples")
    gate = stores.wide.gate = asyncio.Event()
    stores.wide.state = "loading"

    await stores.begin(store)
    await stores.wide.begun.wait()

    assert (await stores.reindexes.get(TENANT, store.id)).waiting_for == "model 'wide' is not ready yet"
    gate.set()
    await jobs_done()


async def test_a_search_that_began_before_the_swap_ends_well(stores: Stores) -> None:
    store = await stores.filled("apples")
    await stores.found(store, "apples")
    stores.rig.embedder.gate = asyncio.Event()
    stores.rig.embedder.begun.clear()
    searching = asyncio.create_task(stores.found(store, "pears"))
    await stores.rig.embedder.begun.wait()

    await stores.begin(store)
    await jobs_done()
    stores.rig.embedder.gate.set()

    assert await searching == ["apples"]


async def test_a_search_that_met_the_swap_is_repeated_with_the_new_model(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores.filled("apples")
    shelf = stores.rig.library.shelf
    at_least = shelf.at_least

    async def swap_first(store_id: str, generation: int) -> object:
        monkeypatch.setattr(shelf, "at_least", at_least)
        await stores.begin(store)
        await jobs_done()
        return await shelf.index(store_id)

    monkeypatch.setattr(shelf, "at_least", swap_first)

    assert await stores.found(store, "apples") == ["apples"]
    assert stores.wide.calls[-1] == ["apples"]


async def test_without_its_old_model_a_store_can_be_searched_again_afterwards(stores: Stores) -> None:
    store = await stores.filled("apples")
    models = StoreModels(ModelRegistry([ModelEntry(WIDE, stores.wide)]), RagSettings())
    changed = Stores(stores.rig, stores.wide, models)
    with pytest.raises(Conflict, match=f"hearth reindex {store.id}"):
        await changed.found(store, "apples")

    await changed.reindexes.begin(TENANT, store.id)
    await jobs_done()

    assert await changed.found(store, "apples") == ["apples"]


async def test_a_reindex_works_on_its_tenants_account(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await stores.filled("apples")
    tenants: list[str] = []
    embed = stores.wide.embed

    async def note(*inputs: Any, **options: Any) -> Any:
        tenants.append(current_asker().tenant)
        return await embed(*inputs, **options)

    monkeypatch.setattr(stores.wide, "embed", note)
    with asking(Asker(tenant="the one that began it")):
        await stores.begin(store)
    await jobs_done()

    assert set(tenants) == {TENANT}


async def test_a_store_that_has_the_models_vectors_is_left_as_it_is(stores: Stores) -> None:
    store = await stores.filled("apples")
    stores.rig.embedder.calls.clear()

    reindex = await stores.reindexes.begin(TENANT, store.id)
    await jobs_done()

    assert (reindex.status, reindex.embedding_model, reindex.num_chunks_done) == ("completed", EMBEDDING.id, 1)
    assert stores.rig.embedder.calls == []
    assert (await stores.stores.get(TENANT, store.id)).generation == 1


async def test_a_model_under_a_new_name_is_still_the_same(stores: Stores) -> None:
    store = await stores.filled("apples")
    renamed = EMBEDDING.model_copy(update={"id": "renamed"})
    models = StoreModels(ModelRegistry([ModelEntry(renamed, stores.rig.embedder)]), RagSettings())
    changed = Stores(stores.rig, stores.wide, models)

    await changed.reindexes.begin(TENANT, store.id)

    assert await changed.found(store, "apples") == ["apples"]


# ---- how it ends otherwise


async def test_a_cancelled_reindex_leaves_the_store_as_it_was(stores: Stores) -> None:
    store = await stores.filled("some apples and some pears")
    gate = stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()

    cancelled = await stores.reindexes.cancel(TENANT, store.id)
    gate.set()
    await jobs_done()
    await stores.rig.library.sweeper.sweep()

    assert cancelled.status == (await stores.reindexes.get(TENANT, store.id)).status == "cancelled"
    assert (await stores.stores.get(TENANT, store.id)).fingerprint == FACTS.fingerprint
    assert len(await stores.found(store, "apples")) == 3
    left = await stores.rig.documents.read(lambda db: db.execute("SELECT count(*) FROM edition_vectors").fetchall())
    assert left == [(0,)]


async def test_after_a_cancelled_reindex_another_one_begins_anew(stores: Stores) -> None:
    """What was embedded may be another model's."""
    store = await stores.filled("some apples and some pears")
    gate = stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()
    await stores.reindexes.cancel(TENANT, store.id)
    gate.set()

    await stores.begin(store)
    await jobs_done()

    assert len(await stores.texts_with_wide_vectors(store)) == 3


async def test_a_deleted_store_is_not_embedded_on(stores: Stores) -> None:
    store = await stores.filled("apples")
    stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()

    await stores.stores.delete(TENANT, store.id)
    await jobs_done()
    await stores.rig.library.sweeper.sweep()

    assert stores.wide.embedded == []
    assert await stores.rig.documents.read(lambda db: db.execute("SELECT * FROM reindexes").fetchall()) == []


async def test_a_model_that_dies_again_and_again_ends_it_with_a_reason(stores: Stores) -> None:
    store = await stores.filled("apples")
    stores.wide.error = WorkerCrashed("the worker died")

    await stores.begin(store)
    await jobs_done()

    reindex = await stores.reindexes.get(TENANT, store.id)
    assert (reindex.status, reindex.failure) == ("failed", "the worker died")
    assert await stores.found(store, "apples") == ["apples"]


async def test_a_model_that_changes_on_the_way_ends_it_with_a_reason(stores: Stores) -> None:
    store = await stores.filled("apples")
    gate = stores.wide.gate = asyncio.Event()
    await stores.begin(store)
    await stores.wide.begun.wait()

    stores.wide.facts = msgspec.structs.replace(WIDE_FACTS, fingerprint="wide2")
    gate.set()
    await jobs_done()

    reindex = await stores.reindexes.get(TENANT, store.id)
    assert reindex.status == "failed"
    assert reindex.failure and "has changed since the reindex was begun" in reindex.failure


async def test_one_that_was_broken_off_goes_on_where_it_was(tmp_path: Path) -> None:
    wide = WideEmbedder()
    async with open_rig(tmp_path, others=[ModelEntry(WIDE, wide)]) as rig:
        stores = Stores(rig, wide)
        store = await stores.filled("0123456789" * 5)
        wide.gate = asyncio.Event()
        await stores.begin(store)
        await wide.begun.wait()
        wide.begun.clear()
        wide.gate.set()
        await asyncio.sleep(0)
        wide.gate.clear()
        await wide.begun.wait()

    again = WideEmbedder()
    async with open_rig(tmp_path, others=[ModelEntry(WIDE, again)]) as rig:
        await rig.library.reindexing.start()
        await jobs_done()

        stores = Stores(rig, again)
        assert len(await stores.texts_with_wide_vectors(store)) == 5
        assert len(again.embedded) < 5


async def test_vectors_move_to_their_chunks_in_the_end(stores: Stores) -> None:
    store = await stores.filled("some apples and some pears")
    await stores.begin(store)
    await jobs_done()

    await stores.rig.library.sweeper.sweep()

    assert len(await stores.texts_with_wide_vectors(store)) == 3
    rows = await stores.rig.documents.read(lambda db: db.execute("SELECT length(vector) FROM chunks").fetchall())
    assert rows == [(6,)] * 3
    assert await stores.rig.library.reindexes.unfinished() == []


# ---- what is refused


async def test_what_cannot_be_done_is_refused(stores: Stores) -> None:
    store = await stores.filled("apples")
    expiring = await stores.stores.create(TENANT, expires_after_days=1)
    await stores.rig.documents.expire(expiring.last_active_at + 2 * 86_400)

    for attempt, error in (
        (stores.reindexes.begin(TENANT, store.id, embedding_model="nobody"), ModelNotFound),
        (stores.reindexes.begin(TENANT, store.id, embedding_model="ranker"), InvalidRequest),
        (stores.reindexes.begin(TENANT, expiring.id, embedding_model="wide"), Conflict),
        (stores.reindexes.begin("eve", store.id, embedding_model="wide"), ObjectNotFound),
        (stores.reindexes.get(TENANT, store.id), ObjectNotFound),
        (stores.reindexes.cancel("eve", store.id), ObjectNotFound),
    ):
        with pytest.raises(error):
            await attempt


async def test_two_models_at_a_time_are_refused_and_the_same_twice_is_one(stores: Stores) -> None:
    store = await stores.filled("apples")
    gate = stores.wide.gate = asyncio.Event()
    first = await stores.reindexes.begin(TENANT, store.id, embedding_model="wide")

    second = await stores.reindexes.begin(TENANT, store.id, embedding_model="wide")
    with pytest.raises(Conflict, match="being reindexed with model 'wide'; cancel that first"):
        await stores.reindexes.begin(TENANT, store.id)

    assert first.edition == second.edition
    gate.set()
    await jobs_done()


async def test_another_editions_vectors_are_refused(stores: Stores) -> None:
    store = await stores.filled("apples")

    with pytest.raises(Reindexed):
        await stores.rig.documents.known_vectors(store.id, [b"x"], edition=7)
