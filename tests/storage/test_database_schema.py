import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.errors import StorageError
from server.storage.database import Database
from server.storage.schema import read_scripts, upgrade

FIRST = "CREATE TABLE shelves (name TEXT); INSERT INTO shelves VALUES ('a');"
SECOND = "ALTER TABLE shelves ADD COLUMN height INTEGER DEFAULT 7;"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hearth.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def version_of(db: sqlite3.Connection) -> int:
    [(version,)] = db.execute("PRAGMA user_version")
    return version


def test_a_new_file_gets_every_script(db: sqlite3.Connection, path: Path) -> None:
    upgrade(db, path, [FIRST, SECOND])

    assert db.execute("SELECT * FROM shelves").fetchall() == [("a", 7)]
    assert version_of(db) == 2
    assert list(path.parent.iterdir()) == [path]  # nothing was there that a copy could be kept of


def test_an_older_file_gets_what_it_lacks_and_is_kept_as_it_was(db: sqlite3.Connection, path: Path) -> None:
    upgrade(db, path, [FIRST])

    upgrade(db, path, [FIRST, SECOND])

    assert db.execute("SELECT * FROM shelves").fetchall() == [("a", 7)]
    with closing(sqlite3.connect(path.with_name("hearth.schema-1.db"))) as copy:
        assert copy.execute("SELECT * FROM shelves").fetchall() == [("a",)]
        assert version_of(copy) == 1


def test_a_script_that_fails_changes_nothing(db: sqlite3.Connection, path: Path) -> None:
    upgrade(db, path, [FIRST])

    with pytest.raises(sqlite3.OperationalError):
        upgrade(db, path, [FIRST, SECOND, "INSERT INTO nowhere VALUES (1);"])

    assert db.execute("SELECT * FROM shelves").fetchall() == [("a",)]
    assert version_of(db) == 1


def test_a_file_of_a_newer_version_is_refused(db: sqlite3.Connection, path: Path) -> None:
    upgrade(db, path, [FIRST, SECOND])

    with pytest.raises(StorageError, match=r"hearth.db was written by a newer Hearth \(schema 2; .* up to 1\)"):
        upgrade(db, path, [FIRST])


def test_our_scripts_come_with_the_package(db: sqlite3.Connection, path: Path) -> None:
    scripts = read_scripts()

    upgrade(db, path, scripts)

    assert version_of(db) == len(scripts) > 0
    assert "CREATE TABLE chunks" in scripts[0]


def test_a_database_of_a_newer_version_does_not_open(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA user_version = 9999")

    with pytest.raises(StorageError, match="newer Hearth"):
        Database.open(path)


def test_what_the_first_version_has_stored_is_there_after_all_upgrades(db: sqlite3.Connection, path: Path) -> None:
    scripts = read_scripts()
    upgrade(db, path, scripts[:1])
    db.executescript(
        """
        INSERT INTO files VALUES (1, 'file-1', 'ada', 'a.txt', 'assistants', 5, 'x', 1, NULL);
        INSERT INTO vector_stores (row_id, id, tenant, name, description, metadata, created_at, last_active_at,
            embedding_model, fingerprint, dimensions, chunking)
            VALUES (1, 'vs_1', 'ada', '', '', '{}', 1, 1, 'm', 'f', 1, '{}');
        INSERT INTO documents (id, store_row, file_row, status, attributes, chunking, created_at, usage_bytes)
            VALUES (1, 1, 1, 'completed', '{}', '{}', 1, 7);
        INSERT INTO chunks VALUES (1, 1, 1, 1, 0, 0, 5, NULL, '', 1, x'00', x'3c00');
        """
    )

    upgrade(db, path, scripts)

    assert db.execute("SELECT id, vector FROM chunk_vectors WHERE store_row = 1").fetchall() == [(1, b"\x3c\x00")]
    assert db.execute("SELECT id, position FROM documents").fetchall() == [(1, 1)]
    assert db.execute("SELECT id, edition, tenant FROM vector_stores").fetchall() == [("vs_1", 0, "ada")]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
