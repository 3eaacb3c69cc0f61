from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from server.errors import ObjectNotFound
from server.rag import index_maker
from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkChange
from server.rag.index_shelf import IndexShelf
from server.rag.store_index import StoreIndex, vectors_file, words_file
from server.storage.database import Database
from server.storage.disk_room import RESERVE_BYTES
from tests.fakes import stored_chunks
from tests.fakes.stored_chunks import EAST, NORTH, TENANT, add_store

FOLDER = "indexes"


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    database = Database.open(tmp_path / "hearth.sqlite")
    yield DocumentStore(database)
    await asyncio.to_thread(database.close)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[DocumentStore, IndexShelf]]:
    database = Database.open(folder / "hearth.sqlite")
    documents = DocumentStore(database)
    yield documents, IndexShelf(documents, folder / FOLDER)
    await asyncio.to_thread(database.close)


@pytest.fixture
async def store_id(documents: DocumentStore) -> str:
    return await add_store(documents)


@pytest.fixture
def shelf(documents: DocumentStore, tmp_path: Path) -> IndexShelf:
    return IndexShelf(documents, tmp_path / FOLDER, patience_s=5)


async def add_document(documents: DocumentStore, store_id: str, *vectors: Sequence[float]) -> ChunkChange:
    """Commit a document with a chunk for each vector; its file is named after the store's generation."""
    file_id = f"file-{store_id}-{await documents.generation(store_id)}"
    return await stored_chunks.add_document(documents, store_id, [("x", each) for each in vectors], file_id=file_id)


def find(index: StoreIndex, query: Sequence[float] = EAST) -> list[int]:
    """Search by vector; all chunks have the same word."""
    ids, _ = index.vectors.search(np.array([query], np.float32), 100)
    found: list[int] = ids[ids >= 0].tolist()
    assert sorted(index.words.search("x", 100)[0].tolist()) == sorted(found)
    return found


async def test_an_index_is_made_of_what_is_stored(documents: DocumentStore, shelf: IndexShelf, store_id: str) -> None:
    change = await add_document(documents, store_id, NORTH, EAST)

    assert find(await shelf.index(store_id)) == change.added_ids[::-1].tolist()


async def test_an_index_follows_its_store(documents: DocumentStore, shelf: IndexShelf, store_id: str) -> None:
    index = await shelf.index(store_id)

    change = await add_document(documents, store_id, EAST)
    shelf.apply(change)

    assert find(await shelf.index(store_id)) == change.added_ids.tolist()
    assert await shelf.index(store_id) is index


async def test_a_search_waits_for_what_is_committed_but_not_told_yet(
    documents: DocumentStore, shelf: IndexShelf, store_id: str
) -> None:
    await shelf.index(store_id)
    first, second = await add_document(documents, store_id, EAST), await add_document(documents, store_id, NORTH)

    searching = asyncio.create_task(shelf.index(store_id))
    shelf.apply(second)
    shelf.apply(first)

    assert sorted(find(await searching)) == [*first.added_ids, *second.added_ids]


async def test_a_change_that_is_never_told_is_found_all_the_same(
    documents: DocumentStore, tmp_path: Path, store_id: str
) -> None:
    shelf = IndexShelf(documents, tmp_path / FOLDER, patience_s=0)
    await shelf.index(store_id)

    lost, told = await add_document(documents, store_id, EAST), await add_document(documents, store_id, NORTH)
    shelf.apply(told)

    assert sorted(find(await shelf.index(store_id))) == [*lost.added_ids, *told.added_ids]
    shelf.apply(lost)  # late
    assert sorted(find(await shelf.index(store_id))) == [*lost.added_ids, *told.added_ids]


async def test_changes_while_an_index_is_made_are_in_it_once(
    documents: DocumentStore, shelf: IndexShelf, store_id: str
) -> None:
    changes = [await add_document(documents, store_id, EAST)]
    making = asyncio.create_task(shelf.index(store_id))
    for _ in range(5):
        changes.append(await add_document(documents, store_id, EAST))
        shelf.apply(changes[-1])

    await making

    assert sorted(find(await shelf.index(store_id))) == [each for change in changes for each in change.added_ids]


async def test_a_removed_document_is_not_found(documents: DocumentStore, shelf: IndexShelf, store_id: str) -> None:
    await add_document(documents, store_id, EAST)
    kept = await add_document(documents, store_id, NORTH)
    await shelf.index(store_id)

    shelf.apply(await documents.remove_document(TENANT, store_id, f"file-{store_id}-0"))

    assert find(await shelf.index(store_id)) == kept.added_ids.tolist()


async def test_who_stops_waiting_does_not_stop_others(
    documents: DocumentStore, shelf: IndexShelf, store_id: str
) -> None:
    change = await add_document(documents, store_id, EAST)
    impatient, patient = (asyncio.create_task(shelf.index(store_id)) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()

    assert find(await patient) == change.added_ids.tolist()


async def test_a_saved_index_is_read_and_not_made_again(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = await add_document(documents, store_id, EAST)
    await shelf.index(store_id)
    await shelf.save_all()
    monkeypatch.delattr(DocumentStore, "vectors")
    monkeypatch.delattr(index_maker, "read_postings")

    again = IndexShelf(documents, tmp_path / FOLDER)

    assert find(await again.index(store_id)) == change.added_ids.tolist()


async def test_a_file_behind_its_store_is_not_used(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path
) -> None:
    await add_document(documents, store_id, EAST)
    await shelf.index(store_id)
    await shelf.save_all()
    change = await add_document(documents, store_id, NORTH)

    again = IndexShelf(documents, tmp_path / FOLDER)

    assert find(await again.index(store_id), NORTH)[0] == change.added_ids[0]


@pytest.mark.parametrize("file_of", [vectors_file, words_file])
async def test_a_damaged_file_is_made_again(
    documents: DocumentStore,
    shelf: IndexShelf,
    store_id: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file_of: Callable[[Path, str], Path],
) -> None:
    change = await add_document(documents, store_id, EAST)
    await shelf.index(store_id)
    await shelf.save_all()
    path = file_of(tmp_path / FOLDER, store_id)
    path.write_bytes(path.read_bytes()[:-3] + b"odd")
    caplog.set_level(logging.INFO)

    again = IndexShelf(documents, tmp_path / FOLDER)

    assert find(await again.index(store_id)) == change.added_ids.tolist()
    assert "index file not used" in caplog.messages


async def test_a_file_of_another_future_is_not_used(tmp_path: Path) -> None:
    """A restored database gives the ids, and the generations, that came after the backup to other chunks."""
    data, backup = tmp_path / "hearth.sqlite", tmp_path / "backup"
    async with opened(tmp_path) as (documents, _):
        store_id = await add_store(documents)
    shutil.copy(data, backup)
    async with opened(tmp_path) as (documents, shelf):
        forgotten = await add_document(documents, store_id, EAST)
        await shelf.index(store_id)
        await shelf.save_all()

    shutil.copy(backup, data)
    async with opened(tmp_path) as (documents, shelf):
        change = await add_document(documents, store_id, NORTH)
        index = await shelf.index(store_id)

    assert (change.generation, change.added_ids.tolist()) == (forgotten.generation, forgotten.added_ids.tolist())
    assert index.vectors.search(np.array([NORTH], np.float32), 1)[1].item() == pytest.approx(1)


async def test_a_file_of_another_store_is_not_used(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path
) -> None:
    other_id = await add_store(documents)
    await add_document(documents, other_id, NORTH)
    await shelf.index(other_id)
    await shelf.save_all()
    change = await add_document(documents, store_id, EAST)  # of the same generation

    folder = tmp_path / FOLDER
    vectors_file(folder, other_id).rename(vectors_file(folder, store_id))
    words_file(folder, other_id).rename(words_file(folder, store_id))

    assert find(await IndexShelf(documents, folder).index(store_id)) == change.added_ids.tolist()


async def test_files_of_deleted_stores_go(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path
) -> None:
    await add_document(documents, store_id, EAST)
    await shelf.index(store_id)
    await shelf.save_all()

    await documents.delete_store(TENANT, store_id)
    shelf.drop(store_id)
    await shelf.save_all()

    assert list((tmp_path / FOLDER).iterdir()) == []
    assert shelf.num_bytes == 0


async def test_a_disk_that_cannot_be_written_costs_only_the_file(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change = await add_document(documents, store_id, EAST)
    index = await shelf.index(store_id)
    (tmp_path / FOLDER).write_text("in the way")

    await shelf.save_all()

    assert "index not saved" in caplog.messages
    assert find(index) == change.added_ids.tolist()


async def test_a_file_takes_none_of_the_last_room(
    documents: DocumentStore, shelf: IndexShelf, store_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next start would find no room to take an upload, for the sake of what can be made again."""
    await add_document(documents, store_id, EAST)
    await shelf.index(store_id)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=RESERVE_BYTES))

    await shelf.save_all()

    assert list((tmp_path / FOLDER).iterdir()) == []


async def test_files_that_cannot_be_deleted_are_left(shelf: IndexShelf, tmp_path: Path) -> None:
    (tmp_path / FOLDER / "vs_gone.words").mkdir(parents=True)

    await shelf.save_all()

    assert (tmp_path / FOLDER / "vs_gone.words").exists()


async def test_an_unknown_store_has_no_index(shelf: IndexShelf) -> None:
    with pytest.raises(ObjectNotFound):
        await shelf.index("vs_unknown")


async def test_a_store_that_is_deleted_while_it_is_waited_for_is_not_found(
    documents: DocumentStore, tmp_path: Path, store_id: str
) -> None:
    shelf = IndexShelf(documents, tmp_path / FOLDER, patience_s=0)
    await shelf.index(store_id)
    change = await add_document(documents, store_id, EAST)
    await documents.delete_store(TENANT, store_id)

    with pytest.raises(ObjectNotFound):
        await shelf.at_least(store_id, change.generation)


async def test_documents_of_many_jobs_at_once_are_all_found(
    documents: DocumentStore, shelf: IndexShelf, store_id: str
) -> None:
    await shelf.index(store_id)

    async def add(number: int) -> None:
        change = await stored_chunks.add_document(documents, store_id, [("x", EAST)], file_id=f"file-{number}")
        shelf.apply(change)
        index = await shelf.index(store_id)
        # One after the other, and others' changes come between.
        assert change.added_ids[0] in index.vectors.search(np.array([EAST], np.float32), 100)[0]
        assert change.added_ids[0] in index.words.search("x", 100)[0]

    await asyncio.gather(*(add(number) for number in range(30)))

    assert len(find(await shelf.index(store_id))) == 30


async def test_memory_is_counted(documents: DocumentStore, shelf: IndexShelf, store_id: str) -> None:
    await add_document(documents, store_id, EAST, NORTH)

    index = await shelf.index(store_id)

    assert shelf.num_bytes == index.vectors.num_bytes + index.words.num_bytes > 2 * (8 + 2 * 2)
