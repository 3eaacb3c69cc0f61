"""Databases of a schema whose stores had FTS5 tables of their own."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.rag import document_store
from server.rag.document_store import DocumentStore
from server.rag.index_check import check_index
from server.rag.index_shelf import IndexShelf
from server.rag.rows import word_tables
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from tests.fakes.document_check import findings
from tests.fakes.stored_chunks import EAST, TENANT, add_document, add_store

OLD_TABLES = """
CREATE VIRTUAL TABLE chunks_fts_{row} USING fts5 (text, heading, content = '');
CREATE VIRTUAL TABLE chunks_terms_{row} USING fts5vocab (chunks_fts_{row}, instance);
INSERT INTO chunks_fts_{row} (rowid, text, heading) VALUES (1, 'alpha', '');
"""


SINCE_THEN = """
ALTER TABLE chunks DROP COLUMN terms;
ALTER TABLE chunks DROP COLUMN num_words;
DROP TABLE response_items;
DROP TABLE responses;
ALTER TABLE documents DROP COLUMN attempts;
DROP INDEX documents_by_position;
ALTER TABLE documents DROP COLUMN position;
ALTER TABLE chunks DROP COLUMN columns;
"""
"""What schemas after 6 have brought."""


@pytest.fixture
async def store_ids(tmp_path: Path) -> list[str]:
    """Stores as the older schema has them: of two documents each, and one that is deleted and not swept yet."""
    path = DataLayout(tmp_path).database
    database = Database.open(path)
    documents = DocumentStore(database)
    found = [await add_store(documents) for _ in range(3)]
    for store_id in found:
        for number in range(2):
            chunks = [(f"alpha{number}", EAST), ("running", EAST)]
            await add_document(documents, store_id, chunks, file_id=f"file-{number}", context="about Cafés")
    await documents.delete_store(TENANT, found.pop())
    await asyncio.to_thread(database.close)
    with closing(sqlite3.connect(path)) as db:
        for row in (1, 2, 3):
            db.executescript(OLD_TABLES.format(row=row))
        db.executescript(SINCE_THEN)
        db.execute("PRAGMA user_version = 6")
        db.commit()
    return found


async def test_an_older_database_is_searched_as_it_was(
    store_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_store, "_UPGRADE_SLICE_S", -1)  # each step is a transaction of its own
    database = Database.open(DataLayout(tmp_path).database)
    documents = DocumentStore(database)

    await documents.replace_word_tables()

    for store_id in store_ids:
        index = await IndexShelf(documents, tmp_path / "indexes").index(store_id)
        assert [len(index.words.search(word, 9)[0]) for word in ("alpha0", "runs", "cafe", "beta")] == [1, 2, 4, 0]
    assert await database.write(findings) == {}
    assert check_index(tmp_path).problems == ()
    assert (tmp_path / "hearth.schema-6.sqlite").exists()
    await asyncio.to_thread(database.close)


async def test_an_upgrade_that_was_broken_off_is_gone_on_with(
    store_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(30):
        database = Database.open(DataLayout(tmp_path).database)
        is_more = await database.write(lambda db: word_tables.replace_some(db, lambda: True))
        await asyncio.to_thread(database.close)
        if not is_more:
            break

    assert not is_more and check_index(tmp_path).problems == ()
    with closing(sqlite3.connect(DataLayout(tmp_path).database)) as db:
        assert findings(db) == {}
