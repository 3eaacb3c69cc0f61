from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from server.errors import StorageError
from server.rag.document_store import DocumentStore
from server.rag.index_check import check_index
from server.rag.index_shelf import IndexShelf
from server.rag.lexical_index import LexicalIndex
from server.rag.rows import stores
from server.rag.store_index import vectors_file, words_file
from server.rag.vector_index import FaissIndex, vector_arrays
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from tests.fakes.indexed_words import postings_of
from tests.fakes.stored_chunks import EAST, NORTH, TENANT, add_document, add_store


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    database = Database.open(DataLayout(tmp_path).database)
    yield DocumentStore(database)
    await asyncio.to_thread(database.close)


@pytest.fixture
async def store_id(documents: DocumentStore) -> str:
    """A store with documents of which one was replaced and one removed."""
    store_id = await add_store(documents)
    chunks = [("alpha beta", EAST), ("beta gamma", NORTH)]
    await add_document(documents, store_id, chunks, file_id="file-1")
    await add_document(documents, store_id, chunks, file_id="file-2")
    await add_document(documents, store_id, chunks[:1], file_id="file-1")
    await add_document(documents, store_id, chunks, file_id="file-3")
    await documents.remove_document(TENANT, store_id, "file-2")
    return store_id


async def save_index(documents: DocumentStore, store_id: str, folder: Path) -> Path:
    shelf = IndexShelf(documents, DataLayout(folder).indexes)
    await shelf.index(store_id)
    await shelf.save_all()
    return vectors_file(DataLayout(folder).indexes, store_id)


async def test_what_fits_together_has_no_problems(documents: DocumentStore, store_id: str, tmp_path: Path) -> None:
    await save_index(documents, store_id, tmp_path)

    report = check_index(tmp_path)

    [check] = report.stores
    assert report.problems == ()
    assert (check.store_id, check.num_chunks, check.file) == (store_id, 3, "current")


async def test_contexts_of_chunks_are_words_too(documents: DocumentStore, store_id: str, tmp_path: Path) -> None:
    await add_document(documents, store_id, [("delta", EAST)], file_id="file-4", context="about rivers")
    await add_document(documents, store_id, [("delta", EAST)], file_id="file-5", context="about letters")
    await documents.remove_document(TENANT, store_id, "file-5")
    await save_index(documents, store_id, tmp_path)

    assert check_index(tmp_path).problems == ()
    index = await IndexShelf(documents, DataLayout(tmp_path).indexes).index(store_id)
    assert [len(index.words.search(word, 9)[0]) for word in ("rivers", "letters")] == [1, 0]


async def test_an_index_file_may_be_missing_behind_or_unusable(
    documents: DocumentStore, store_id: str, tmp_path: Path
) -> None:
    def state() -> str:
        report = check_index(tmp_path)
        assert report.problems == ()
        return report.stores[0].file

    states = [state()]
    path = await save_index(documents, store_id, tmp_path)
    await documents.remove_document(TENANT, store_id, "file-3")
    states.append(state())
    path.write_bytes(b"odd")
    states.append(state())

    assert states == ["missing", "behind", "unusable"]


async def test_an_index_file_that_claims_to_be_right_and_is_not_is_a_problem(
    documents: DocumentStore, store_id: str, tmp_path: Path
) -> None:
    path = await save_index(documents, store_id, tmp_path)
    generation, ids, vectors = await documents.vectors(store_id)
    _, mark = await documents.read(lambda db: stores.mark(db, store_id))
    FaissIndex(generation, [vector_arrays(ids, vectors[::-1])]).save(path, mark)
    postings = postings_of((int(chunk_id), "delta", "") for chunk_id in ids)
    LexicalIndex(generation, [postings]).save(words_file(path.parent, store_id), mark)

    report = check_index(tmp_path)

    assert report.problems == tuple(
        f"vector store {store_id}: {what} in the index file that are not those of the database"
        for what in ("vectors", "words")
    )
    assert report.stores[0].file == "current"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM chunks WHERE id = (SELECT max(id) FROM chunks)", "completed documents with more or fewer chunks"),
        ("UPDATE chunks SET num_words = 7", "words that are not those of the chunks"),
        ("UPDATE chunks SET terms = NULL, num_words = NULL", "words that are not those of the chunks"),
        ("UPDATE chunks SET document_id = 999", "chunks of no document"),
        ("UPDATE chunks SET document_id = 999", "refers to a row of documents that is not there"),
        ("UPDATE chunks SET store_row = 999", "in another store than their document"),
        ("UPDATE chunks SET parent_id = 999", "without their parent"),
        ("UPDATE chunks SET end = end + 999", "reach beyond their text"),
        ("DELETE FROM texts", "chunks without text"),
        ("UPDATE texts SET text = replace(text, 'beta', 'zeta')", "words that are not those of the chunks"),
        ("UPDATE chunks SET heading = 'more'", "words that are not those of the chunks"),
        ("UPDATE chunks SET vector = x'00'", "not of 2 numbers"),
        ("UPDATE chunks SET vector = x'00000000'", "not of length 1"),
        ("UPDATE chunks SET vector = x'007e007e'", "not of length 1"),
        ("UPDATE document_counts SET number = 7", "wrong counts of documents"),
        ("UPDATE sequences SET last = 1", "may be given out again"),
        (
            "INSERT INTO pending_vectors (store_row, document_id, hash, vector) SELECT store_row, id, x'00', x'00' "
            "FROM documents WHERE status = 'completed'",
            "a job that is over",
        ),
    ],
)
async def test_what_does_not_fit_together_is_a_problem(
    store_id: str, tmp_path: Path, damage: str, problem: str
) -> None:
    with closing(sqlite3.connect(DataLayout(tmp_path).database)) as db, db:
        db.execute(damage)

    problems = check_index(tmp_path).problems

    assert any(problem in each for each in problems), problems


def test_a_directory_without_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no database"):
        check_index(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    DataLayout(tmp_path).database.write_bytes(b"odd" * 1000)

    with pytest.raises(StorageError, match="cannot be read"):
        check_index(tmp_path)
