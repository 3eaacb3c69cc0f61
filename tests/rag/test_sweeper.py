"""What is deleted goes in the background, and others who write need not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.errors import StorageError
from server.rag import sweeper as sweeper_module
from server.rag.document_store import DocumentStore
from server.rag.documents import Span
from server.rag.index_shelf import IndexShelf
from server.rag.rows import stores, sweeps, transfers
from server.rag.rows.stores import NewStore
from server.rag.sweeper import Sweeper
from server.storage.database import Database
from tests.fakes.document_check import findings
from tests.fakes.documents import a_file, a_store, completed


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "hearth.db")
    yield database
    database.close()


@pytest.fixture
def documents(database: Database) -> DocumentStore:
    return DocumentStore(database)


@pytest.fixture
def shelf(documents: DocumentStore, tmp_path: Path) -> IndexShelf:
    return IndexShelf(documents, tmp_path / "indexes")


async def filled_store(documents: DocumentStore, *, num_chunks: int) -> str:
    store = await a_store(documents)
    await documents.add_file("default", a_file(f"file-{store.id}"))
    spans = [Span(start, start + 40) for start in range(num_chunks)]
    await completed(documents, store.id, f"file-{store.id}", "many words to find " * (num_chunks // 10), *spans)
    return store.id


async def num_chunks(documents: DocumentStore) -> int:
    [(number,)] = await documents.read(lambda db: db.execute("SELECT count(*) FROM chunks").fetchall())
    return int(number)


async def test_others_write_between_the_slices(
    database: Database, documents: DocumentStore, shelf: IndexShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SLICE_S", 0)
    store_id = await filled_store(documents, num_chunks=500)
    await documents.delete_store("default", store_id)
    left = []

    sweeping = asyncio.create_task(Sweeper(database, shelf, pause_s=0).sweep())
    while not sweeping.done():
        await a_store(documents)
        left.append(await num_chunks(documents))

    assert left == sorted(left, reverse=True) and len(set(left)) > 3
    assert await database.write(findings) == {}


async def test_a_slice_may_end_after_a_hundred_rows(database: Database, documents: DocumentStore) -> None:
    store_id = await filled_store(documents, num_chunks=500)
    await documents.delete_store("default", store_id)

    done = await database.write(lambda db: sweeps.sweep(db, lambda: True))

    assert (done.is_last, await num_chunks(documents)) == (False, 400)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_it_goes_on_wherever_it_was_killed(tmp_path: Path, *, is_deleted: bool) -> None:
    """Its step is committed with what it did."""
    first = Database.open(tmp_path / "hearth.db")
    documents = DocumentStore(first)
    store = await a_store(documents, expires_after_days=1)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "some words")
    if is_deleted:
        await documents.delete_store("default", store.id)
    else:
        await documents.expire(store.last_active_at + 86_400)
    first.close()

    is_last, found = False, {}
    for _ in range(30):
        database = Database.open(tmp_path / "hearth.db")
        is_last = (await database.write(lambda db: sweeps.sweep(db, lambda: True))).is_last
        if is_last:
            found = await database.write(findings)
        database.close()

    assert (is_last, found) == (True, {})


async def test_an_index_that_was_made_of_what_is_being_swept_goes_too(
    database: Database, documents: DocumentStore, shelf: IndexShelf
) -> None:
    store = await a_store(documents, expires_after_days=1)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "text")
    await documents.expire(store.last_active_at + 86_400)
    await shelf.index(store.id)

    await Sweeper(database, shelf, pause_s=0).sweep()

    assert not shelf.holds(store.id)


async def test_what_a_killed_import_has_left_is_swept_after_the_next_start(
    database: Database, documents: DocumentStore, shelf: IndexShelf
) -> None:
    store = await a_store(documents)
    new = NewStore(
        name="",
        description="",
        metadata={},
        expires_after_days=None,
        embedding_model="m",
        fingerprint="f",
        dimensions=8,
        chunking=store.chunking,
    )
    await database.write(lambda db: transfers.begin_import(db, new, now=1))
    sweeper = Sweeper(database, shelf, pause_s=0)

    await sweeper.recover()
    await sweeper.sweep()

    rows = await documents.read(lambda db: db.execute("SELECT tenant FROM vector_stores").fetchall())
    assert rows == [("default",)] and stores.NOBODY != "default"


async def test_it_goes_on_after_errors(
    database: Database, shelf: IndexShelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [StorageError("the disk is full"), RuntimeError("a bug")]
    has_worked = asyncio.Event()

    async def fail_at_first(self: Sweeper) -> None:
        if errors:
            self.wake()
            raise errors.pop(0)
        has_worked.set()

    monkeypatch.setattr(Sweeper, "sweep", fail_at_first)
    monkeypatch.setattr(sweeper_module, "RETRY_S", 0)

    running = asyncio.create_task(Sweeper(database, shelf).sweep_for_ever())
    await has_worked.wait()
    running.cancel()
    await asyncio.wait((running,))

    assert "a bug" in caplog.text
